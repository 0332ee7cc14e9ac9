# Two commands matter: `make run` and `make test`. Both make the virtual environment first if it is missing.
VENV ?= .venv
AUDIT ?= .venv-audit
RECIPE ?= quickstart
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: run test lint types unit audit faults worlds platform bench speed install install-dev ui up clean

run: install
	@$(BIN)/genai run $(RECIPE)

test: lint types unit

lint: install-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: install-dev
	@$(BIN)/mypy

unit: install-dev
	@$(BIN)/pytest -m "not faults and not worlds and not platform and not gpu and not network"

# Known vulnerabilities of the pinned libraries. Its tool has an environment of its own: its libraries are not ours to pin.
audit: $(AUDIT)/.installed
	@$(AUDIT)/bin/python .ci/audit.py constraints.txt

# The suite; with BUDGET_MINUTES instead random faults for so long, on the real services of tests/platform: every call adds
# to docs/results/faults.md.
faults: install-dev
	@$(if $(BUDGET_MINUTES),$(BIN)/python -W ignore -m tests.platform.fault_table --budget-minutes $(BUDGET_MINUTES),$(BIN)/pytest -m faults tests)

worlds: install-dev
	@$(BIN)/pytest -m worlds tests

platform: install-dev
	@$(BIN)/pytest -m platform tests

# Speed beside transformers and TRL; generation too, where MODEL names the folder of a model; preparation too, where TEXT
# names a folder of text files.
bench: install-dev
	@$(BIN)/python -W ignore -m genai_core.training.bench --sizes 6M 135M --rounds 2 --steps 10 --json bench-training.json
	@test -z "$(MODEL)" || $(BIN)/python -W ignore -m genai_core.generation.bench --model $(MODEL) --json bench-generation.json
	@test -z "$(TEXT)" || $(BIN)/python -W ignore -m genai_core.stages.bench $(TEXT) --profile --json bench-preparation.json

# Fails where training has become slower beside transformers' Trainer than it was: ratios, which hold on other machines too.
speed: install-dev
	@$(BIN)/python -W ignore -m genai_core.training.bench --contenders ours trainer --rounds 3 --steps 10 \
		--against docs/results/speed.json --tolerance 0.2

ui: install
	@$(BIN)/genai ui

up: install
	@$(BIN)/genai up

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "genai needs Python 3.11 or 3.12; none was found. Install one, or: make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade "pip>=24"

# torch first and alone: an exact version with a CPU build at hand must not be replaced by one with CUDA.
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing genai (a few minutes the first time)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the test tools"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[dev,parity]"
	@touch $@

$(AUDIT)/.installed:
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install -qq --disable-pip-version-check pip-audit==2.10.1
	@touch $@

clean:
	rm -rf $(VENV) $(AUDIT) .genai

"""The walk-through of adding an objective, walked: its files and edits go into a copy of the house, its commands run there.

A new file is a python block whose first line names it; an edit is a diff block. What an edit leaves or takes away must
stand in the file exactly once: when the house has moved on, the document must follow.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import ROOT, Block, blocks, commands

PAGE = ROOT / "docs/adding-an-objective.md"
COPIED = ("genai_core", "flows", "tasks", "deployments", "tests", "pyproject.toml", "docs")
NOT_HERE = {"make", "run"}  # the whole suite in itself; a whole run, which is for people


def write_new_file(house: Path, block: Block) -> None:
    """Write the block into the file that its first line names."""
    first, _, body = block.text.partition("\n")
    path = house / first.removeprefix("# ")
    assert not path.exists(), f"{block}: {path.name} is there already: the walk-through must add something new"
    path.write_text(body, encoding="utf-8")


def edit(house: Path, block: Block) -> None:
    """Apply the hunks of a diff block, found by their text."""
    first, *hunks = block.text.split("@@\n")
    path = house / first.removeprefix("--- ").strip()
    text = path.read_text(encoding="utf-8")
    for hunk in hunks:
        lines = hunk.splitlines()
        before = "\n".join(line[1:] for line in lines if line[:1] in {" ", "-", ""})
        after = "\n".join(line[1:] for line in lines if line[:1] in {" ", "+", ""})
        assert text.count(before) == 1, f"{block}: stands {text.count(before)} times in {path.name}:\n{before}"
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, folder / name)
    for block in blocks(PAGE):
        if block.language == "python":
            write_new_file(folder, block)
        elif block.language == "diff":
            edit(folder, block)
    return folder


def run(house: Path, *words: str) -> subprocess.CompletedProcess[str]:
    programs = {"pytest": ["pytest", "-p", "no:cacheprovider"], "genai": ["genai_core.cli"]}
    environment = {**os.environ, "PYTHONPATH": str(house), "GENAI_HOME": str(house / "home"), "COLUMNS": "120"}
    command = [sys.executable, "-m", *programs[words[0]], *words[1:]]
    return subprocess.run(command, cwd=house, env=environment, capture_output=True, text=True, timeout=600)


def test_every_command_of_the_walk_through_does_what_it_says(house: Path) -> None:
    told = {}
    for command in commands(PAGE):
        if NOT_HERE & set(command.words[:2]):
            continue
        words = command.words
        target = ""
        if ">" in words:
            words, target = words[: words.index(">")], words[-1]
        done = run(house, *words)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        told[words[:3]] = done.stdout
        if target:
            (house / target).write_text(done.stdout)
    assert "3 passed" in told["pytest", "tests/training/test_train_engine.py", "-k"]
    assert "finetune" in told["genai", "recipe", "check"]
    assert "**`kind: robust_lm`**" in (house / "docs/recipes.md").read_text()


def test_the_objective_defines_the_result_of_the_training_that_has_it(house: Path) -> None:
    """Fine-tuning gets another key by it, pre-training does not; a bound of its config is held."""
    code = (
        "from genai_core.config.load import load_recipe\n"
        "from genai_core.storage.digest import digest_json\n"
        "plain = load_recipe('minute')\n"
        "other = load_recipe('minute', ['finetuning.objective={kind: robust_lm, q: 0.5}'])\n"
        "assert digest_json(plain.finetuning) != digest_json(other.finetuning)\n"
        "assert digest_json(plain.pretraining) == digest_json(other.pretraining)\n"
        "load_recipe('minute', ['finetuning.objective={kind: robust_lm, q: 2}'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(house)}
    done = subprocess.run([sys.executable, "-c", code], cwd=house, env=environment, capture_output=True, text=True)
    assert "finetuning.objective.q = 2" in done.stderr, done.stderr

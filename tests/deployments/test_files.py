"""Every deployment file parses, and what it names exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent


def test_every_deployment_names_a_flow_and_a_recipe_that_exist() -> None:
    from genai_core.config.load import load_recipe

    content = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())
    assert content["deployments"]
    for deployment in content["deployments"]:
        path, function = deployment["entrypoint"].split(":")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        assert hasattr(module, function)
        load_recipe(deployment["parameters"]["recipe"]["name"])


def test_compose_builds_from_files_that_are_there_and_publishes_on_loopback_only() -> None:
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    for service in compose["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
    copied = re.findall(r"^COPY --chown=genai (.+) \S+$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
    assert copied
    for line in copied:
        for name in line.split():
            assert (ROOT / name).exists()


def test_the_commands_of_the_readme_exist() -> None:
    import typer.main

    from genai_core.cli.main import app

    group = typer.main.get_command(app)
    known = set(group.commands)  # type: ignore[attr-defined]
    used = set(re.findall(r"^(?:source .*\n)?genai (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert used
    assert used <= known
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_pins_in_pyproject_agree_with_the_constraints() -> None:
    import tomllib

    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and line[0] != "#"
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        name, _, version = re.sub(r"\[.*\]", "", requirement).partition("==")
        bare = re.split(r"[><=~ ]", name)[0]
        assert bare in pins, f"{bare} has no pin"
        if version:
            assert pins[bare] == version


def test_no_two_test_files_share_a_name() -> None:
    """Without packages, pytest refuses the second of two modules of one name, and with it the whole suite."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))

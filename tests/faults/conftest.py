"""Homes that the scenarios start from. Each is made once and copied; the unbroken runs are what all others must equal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_runs import RECIPE, Home

from genai_core.cli.services import await_prefect, begin_prefect, prefect_environment


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Prefect server for all runs: its start is not what is tested here."""
    home = tmp_path_factory.mktemp("server")
    os.environ.update(prefect_environment(home))
    begin_prefect(home)
    yield f"{await_prefect(home)}/api"
    # its keeper stops it when this process, which holds the lease, ends


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with nothing in it, which starts its own Prefect server."""
    folder = tmp_path_factory.mktemp("blank")
    recipe = folder / "faults.yaml"
    recipe.write_text(RECIPE)
    (folder / "home").mkdir()
    return Home(folder / "home", recipe)


@pytest.fixture(scope="session")
def prepared(blank: Home, prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with the corpus."""
    home = blank.copy(tmp_path_factory.mktemp("prepared") / "home")
    home.environment = {"PREFECT_API_URL": prefect_api}
    home.run("augmentation")
    return home


@pytest.fixture(scope="session")
def unbroken(prepared: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with the corpus and the base model of a run that nothing interrupted."""
    home = prepared.copy(tmp_path_factory.mktemp("unbroken") / "home")
    home.run("pretraining")
    return home


@pytest.fixture(scope="session")
def instructed(unbroken: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with all that a generation starts from."""
    home = unbroken.copy(tmp_path_factory.mktemp("instructed") / "home")
    home.run("finetuning")
    return home


@pytest.fixture
def home(prepared: Home, tmp_path: Path) -> Home:
    """A copy of the home with the corpus, to break."""
    return prepared.copy(tmp_path / "home")

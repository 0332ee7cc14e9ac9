"""Whole runs: two of one recipe at once, and what happens when a published artifact is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_runs import Home

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def twice(blank: Home, tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, dict[str, str], dict[str, str], int]:
    """A home in which two runs of the recipe were started at once, from nothing: no server, no database, no store."""
    home = blank.copy(tmp_path_factory.mktemp("twice") / "home")
    home.environment = {}
    recipe = home.path.parent / "faults.yaml"
    recipe.write_text(blank.recipe.read_text().replace("generations: 1", "generations: 0"))
    home.recipe = recipe
    with home.start() as first, home.start() as second:
        codes = [first.end(0, 3), second.end(0, 3)]
        assert codes[0] == codes[1]
        for running in (first, second):
            running.await_nothing_left(30.0)  # the keeper of Prefect's server waits a while for another run
    return home, first.statuses(), second.statuses(), codes[0]


def test_two_runs_at_once(twice: tuple[Home, dict[str, str], dict[str, str], int]) -> None:
    """Every stage is computed once and reused once; one MLflow run for each, one model version."""
    home, first, second, _ = twice
    stages = [name for name in first if name != "promote"]
    print({name: (first[name], second[name]) for name in first})
    assert len(stages) >= 8
    for name in stages:
        if first[name] != "skipped":
            assert {first[name], second[name]} == {"computed", "reused"}, name
            assert [run.info.status for run in home.stage_runs(name)] == ["FINISHED"], name
            for metric, steps in home.history(name).items():
                assert len(steps) == len(set(steps)), f"{name}: {metric} has doubles: {steps}"
    assert len(home.model_versions()) == 1
    assert not list((home.path / "store" / "work").glob("*/*"))


def flip_a_byte(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x01
    path.write_bytes(data)


def test_damaged_artifact(
    twice: tuple[Home, dict[str, str], dict[str, str], int], prefect_api: str, tmp_path: Path
) -> None:
    """It is never loaded: the run fails and names file and remedy; `storage verify` finds it, `--refresh` heals it."""
    home = twice[0].copy(tmp_path / "home")
    home.environment = {"PREFECT_API_URL": prefect_api}
    assert home.call("storage", "verify").returncode == 0
    whole = home.published()
    flip_a_byte(home.folder("pretrain") / "model.safetensors")

    failed = home.run(code=1)
    text = " ".join(failed.output.split())
    assert "model.safetensors has other bytes" in text
    assert "`--refresh pretrain`" in text
    found = home.call("storage", "verify")
    print(found.stdout.strip())
    assert found.returncode == 1
    assert "model.safetensors" in found.stdout

    healed = home.run("", "--refresh", "pretrain", code=twice[3])
    statuses = healed.statuses()
    assert [name for name, status in statuses.items() if status == "computed"] in (
        ["pretrain"],
        ["pretrain", "promote"],
    )
    assert home.call("storage", "verify").returncode == 0
    assert home.published() == whole
    assert len(home.model_versions()) == 1

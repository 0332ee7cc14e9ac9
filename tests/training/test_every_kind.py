"""The whole worker on every kind of objective: as many rows in a pass as one likes, on one process or two, give one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import every_kind
import pytest
from every_kind import KINDS, given, make_everything
from gloo_ranks import ranks_beside
from safetensors.torch import load_file
from small_run import largest_difference

from genai_core.training.worker import train_worker

SCRIPT = Path(every_kind.__file__)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("every kind")
    make_everything(made)
    return made


@pytest.fixture(scope="module")
def one(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes, two rows in a pass."""
    out = tmp_path_factory.mktemp("one")
    every_kind.main(0, 1, out, folder, *KINDS)
    return out


@pytest.fixture(scope="module")
def two(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two gloo processes make."""
    out = tmp_path_factory.mktemp("two")
    with ranks_beside(SCRIPT, 2, out, folder, *KINDS, timeout=900):
        pass
    return out


def published(work: Path) -> dict[str, Any]:
    """Return the weights of a model and of what stands beside it."""
    return {
        f"{file.name}/{name}": tensor.double()
        for file in sorted((work / "model").glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def summary(work: Path) -> dict[str, float]:
    return dict(json.loads((work / "summary.json").read_text()))


def same(found: Path, expected: Path) -> None:
    """Assert that two runs have made one model, and measured it alike."""
    assert largest_difference(published(found), published(expected)) < 1e-6, "published in float32"
    assert summary(found) == pytest.approx(summary(expected), rel=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_rows_in_a_pass_do_not_matter(folder: Path, one: Path, tmp_path: Path, name: str) -> None:
    """Passes of three rows, the last one short, against passes of two; and another seed is told from the same."""
    compute = {"precision": "float64", "micro_batch_rows": 3}
    train_worker(given(folder, tmp_path / "cut", name, compute=compute, steps=8))
    same(tmp_path / "cut", one / name)
    again = given(folder, tmp_path / "other", name, compute={"precision": "float64", "micro_batch_rows": 8}, steps=8)
    again["training"] = {**again["training"], "seed": 6}
    train_worker(again)
    assert largest_difference(published(tmp_path / "other"), published(one / name)) > 1e-3, (
        "another seed is another model"
    )


@pytest.mark.parametrize("name", KINDS)
def test_the_number_of_processes_does_not_matter(one: Path, two: Path, name: str) -> None:
    same(two / name, one / name)
    assert json.loads((two / name / "told.json").read_text())["plan"]["world_size"] == 2

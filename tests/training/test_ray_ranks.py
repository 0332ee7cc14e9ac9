"""One and two Ray Train workers learn the same weights, as one and two bare processes do in test_ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from worker_case import make_corpus, read_journal

SCRIPT = Path(__file__).with_name("ray_case.py")
OBJECTIVES = {
    "causal": {"kind": "causal_lm"},
    "joint": {"kind": "joint_contrastive", "contrastive_weight": 0.3, "temperature": 0.2},
}

pytestmark = pytest.mark.platform


def describe(folder: Path, world_size: int, precision: str, **training) -> dict:
    return {
        "folder": str(folder),
        "world_size": world_size,
        "training": {"steps": 20, **training},
        "compute": {"precision": precision, "micro_batch_rows": 2, "workers": world_size},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Run every case in one local Ray; return the folder of the runs, named case-world_size."""
    folder = tmp_path_factory.mktemp("runs")
    make_corpus(folder / "corpus")
    wanted = [
        *(
            describe(folder / f"{name}-{world_size}", world_size, "float64", objective=objective)
            for name, objective in OBJECTIVES.items()
            for world_size in (1, 2)
        ),
        *(describe(folder / f"single-{world_size}", world_size, "float32") for world_size in (1, 2)),
        describe(folder / "reseeded-1", 1, "float64", seed=1),
    ]
    (folder / "runs.json").write_text(json.dumps(wanted))
    for run in wanted:
        Path(run["folder"]).mkdir()
    outcome = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder / "corpus"), str(folder / "runs.json")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    return folder


def largest_difference(one: Path, other: Path) -> float:
    left, right = (load_file(path / "model" / "model.safetensors") for path in (one, other))
    assert sorted(left) == sorted(right)
    return max(float((left[name].double() - right[name].double()).abs().max()) for name in left)


def losses(work: Path) -> list[float]:
    return [row["m"]["train/loss"] for row in read_journal(work) if "train/loss" in row.get("m", {})]


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_weights_after_twenty_steps_are_the_same(runs: Path, name: str) -> None:
    for world_size in (1, 2):
        told = json.loads((runs / f"{name}-{world_size}" / "told.json").read_text())
        assert told["plan"]["world_size"] == world_size
    difference = largest_difference(runs / f"{name}-1", runs / f"{name}-2")
    print(f"{name}: largest difference {difference:.2e}")
    assert difference < 1e-9


def test_another_order_of_the_rows_is_seen(runs: Path) -> None:
    assert largest_difference(runs / "causal-1", runs / "reseeded-1") > 1e-4


def test_float32_losses_agree(runs: Path) -> None:
    one, two = losses(runs / "single-1"), losses(runs / "single-2")
    assert len(one) == len(two) == 20
    difference = max(abs(a - b) for a, b in zip(one, two, strict=True))
    print(f"largest difference of 20 losses {difference:.2e}")
    assert difference < 1e-4

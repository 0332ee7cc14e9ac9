"""SIGKILL of the training worker at two random steps, for every kind of objective: what it publishes is the unbroken run's.

What an objective draws (what is hidden, diffusion times, prefixes, cuts, the order of several datasets) and what it compares
(all rows of a step, a teacher) must come back as it was. So the bytes are compared, and every step's figures told once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from fault_runs import PATIENCE_SECONDS, REPOSITORY, moments

sys.path.append(str(REPOSITORY / "tests" / "training"))
from every_kind import KINDS, given, make_everything
from worker_case import digests, read_journal

from genai_core.config.objectives import Objective
from genai_core.training.worker import train_worker

pytestmark = pytest.mark.faults

STEPS, CHECKPOINT_EVERY = 60, 4
RANGES = [(5, 20), (25, 40)]
"""Steps of the two kills: behind a checkpoint, and long before the end."""

SCRIPT = REPOSITORY / "tests" / "training" / "worker_case.py"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows of every sort."""
    made = tmp_path_factory.mktemp("every kind")
    make_everything(made)
    return made


def values(folder: Path, work: Path, name: str) -> dict[str, Any]:
    return given(folder, work, name, steps=STEPS, checkpoint_every_steps=CHECKPOINT_EVERY, evaluate_every_steps=20)


def last_step(work: Path) -> int:
    """Return the last step whose row is whole in the journal."""
    journal = work / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    return max((json.loads(line).get("step", 0) for line in lines if line.endswith(b"\n")), default=0)


def train_and_kill(arguments: dict[str, Any], work: Path, step: int, after: float) -> None:
    """Start the worker in a process of its own and kill it so many seconds after it has told a step."""
    file = work.parent / f"{work.name}.json"
    file.write_text(json.dumps(arguments))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(file)], env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while last_step(work) < step:
            assert process.poll() is None, f"ended with {process.returncode} before step {step}"
            assert time.monotonic() < deadline, f"step {step} did not happen"
            time.sleep(0.002)
        time.sleep(after)
    finally:
        process.kill()
        code = process.wait()
    assert code == -9, "it was quicker than the kill"
    print(f"  killed behind step {last_step(work)}")


def figures(work: Path) -> list[tuple[int, str, float]]:
    """Return every figure of every step, without those of time."""
    rows = [row for row in read_journal(work) if "m" in row]
    return sorted(
        (row["step"], name, value)
        for row in rows
        for name, value in row["m"].items()
        if "second" not in name and "mfu" not in name
    )


@pytest.mark.parametrize("name", KINDS)
def test_killed_twice_and_run_again_publishes_the_same_bytes(folder: Path, tmp_path: Path, name: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_worker(values(folder, whole, name))
    for step, after in moments(f"objective {name}", RANGES):
        train_and_kill(values(folder, killed, name), killed, step, after / 10)
        assert not (killed / "summary.json").exists()
    train_worker(values(folder, killed, name))
    resumed = [row["e"] for row in read_journal(killed) if row.get("e", "").startswith("resumed at step")]
    assert len(resumed) == len(RANGES), resumed
    assert digests(killed / "model") == digests(whole / "model")
    assert (killed / "summary.json").read_text() == (whole / "summary.json").read_text()
    assert figures(killed) == figures(whole), "every figure of every step, once"
    assert [step for step, metric, _ in figures(whole) if metric == "train/loss"] == list(range(1, STEPS + 1))


def test_no_kind_is_missing() -> None:
    kinds = {kind for one in get_args(get_args(Objective)[0]) for kind in get_args(one.model_fields["kind"].annotation)}
    assert kinds == {objective["kind"] for _, objective in KINDS.values()}

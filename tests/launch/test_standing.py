"""On a real Ray: trainings of one worker share a process; a killed one is replaced, a hopeless one is given up."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from genai_core.errors import DataError, StageFailedError, TransientError
from genai_core.launch.workers import RayWorkers


def note(arguments: dict[str, Any]) -> None:
    """Write down which process runs this, then do what the arguments ask for."""
    file = Path(arguments["file"])
    with file.open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    attempt = len(file.read_text().splitlines())
    if attempt <= arguments.get("dies", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if attempt <= arguments.get("transient", 0):
        raise TransientError("the store did not answer")
    if arguments.get("breaks"):
        raise ZeroDivisionError("nothing to divide by")
    if arguments.get("refuses"):
        raise DataError("no row is left")


def train(workers: RayWorkers, file: Path, size: int = 1, **arguments: Any) -> list[int]:
    """Run a training; return the processes that ran it, in turn."""
    try:
        workers.train(note, {"file": str(file), **arguments}, world_size=size, threads=1)
    finally:
        pids = [int(line) for line in file.read_text().splitlines()]
    return pids


def test_trainings_share_a_process(workers: RayWorkers, tmp_path: Path) -> None:
    (first,) = train(workers, tmp_path / "first")
    assert train(workers, tmp_path / "second") == [first]
    with pytest.raises(DataError, match="no row is left"):
        train(workers, tmp_path / "refused", refuses=True)
    assert (tmp_path / "refused").read_text() == f"{first}\n", "what a retry cannot mend is not retried"
    assert train(workers, tmp_path / "third") == [first]


@pytest.mark.parametrize("loss", ["dies", "transient"])
def test_a_lost_worker_is_replaced_and_the_training_begins_again(
    workers: RayWorkers, tmp_path: Path, loss: str
) -> None:
    first, second = train(workers, tmp_path / "lost", **{loss: 1})
    assert first != second
    assert train(workers, tmp_path / "next") == [second]


def test_a_training_that_fails_each_time_is_given_up_and_the_next_one_runs(workers: RayWorkers, tmp_path: Path) -> None:
    with pytest.raises(
        StageFailedError, match=r"failed on its worker 2 times: ZeroDivisionError: nothing to divide by"
    ):
        train(workers, tmp_path / "broken", breaks=True)
    with pytest.raises(StageFailedError, match=r"failed on its worker 2 times: it was killed each time"):
        train(workers, tmp_path / "killed", dies=9)
    assert len(train(workers, tmp_path / "sound")) == 1


def test_a_group_of_two_takes_its_place_and_it_comes_back(workers: RayWorkers, tmp_path: Path) -> None:
    (alone,) = train(workers, tmp_path / "alone")
    assert alone not in train(workers, tmp_path / "two", size=2)
    with pytest.raises(ProcessLookupError):
        os.kill(alone, 0)
    assert len(train(workers, tmp_path / "again")) == 1

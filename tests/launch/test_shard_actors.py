"""On a real Ray: a shard worker outlives a training, its model does not; a killed one is replaced."""

from __future__ import annotations

import os
import signal
from typing import Any

from genai_core.launch.workers import RayWorkers

kept: list[str] = []
"""What a module keeps between shards, as generation keeps a model."""


def forget() -> None:
    kept.clear()


def tell(arguments: dict[str, Any], rows: list[int]) -> list[dict[str, Any]]:
    """Return this process and what it kept from shards before."""
    before = list(kept)
    kept.append(arguments["model"])
    return [{"pid": os.getpid(), "kept": before} for _ in rows]


def train_nothing(arguments: dict[str, Any]) -> None:
    """A training that is over at once."""


def ask(workers: RayWorkers, part: str, threads: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = workers.map_shards(
        tell, {"model": part}, [0], name=part, shard_rows=1, workers=1, threads=threads
    )[0]
    return found


def test_a_shard_worker_outlives_a_training_and_its_model_does_not(workers: RayWorkers) -> None:
    first = ask(workers, "first")
    again = ask(workers, "again")
    assert again == {"pid": first["pid"], "kept": ["first"]}
    workers.train(train_nothing, {}, world_size=1, threads=1)
    assert ask(workers, "after training") == {"pid": first["pid"], "kept": []}
    other = ask(workers, "other threads", threads=2)
    assert other["pid"] != first["pid"], "torch's threads are set once in a process"


def test_a_shard_worker_killed_before_a_training_is_replaced_after_it(workers: RayWorkers) -> None:
    first = ask(workers, "to be killed", threads=2)
    os.kill(first["pid"], signal.SIGKILL)
    workers.train(train_nothing, {}, world_size=1, threads=1)
    assert ask(workers, "in its place", threads=2)["pid"] != first["pid"]

"""SIGKILL of the flow in the middle of synthesis: finished generation shards stay, the rest is made, same bytes."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from fault_runs import SEED, Home, RunningFlow, wait_for

pytestmark = pytest.mark.faults

TITLE = "synthesize-g1"


def watch_shards(running: RunningFlow) -> dict[str, set[tuple[int, int]]]:
    """Return all that every shard file was (inode and time) until the run ended; one made again was more than one."""
    seen: dict[str, set[tuple[int, int]]] = {}
    while running.process.poll() is None:
        for name, identity in running.home.shards(TITLE).items():
            seen.setdefault(name, set()).add(identity)
        time.sleep(0.02)
    return seen


def test_killed_flow(instructed: Home, tmp_path: Path) -> None:
    """The rerun makes only the shards that were not finished, and all that follows equals the unbroken run's."""
    unbroken, home = instructed.copy(tmp_path / "unbroken"), instructed.copy(tmp_path / "home")
    with unbroken.start("recursion") as running:
        made = watch_shards(running)
        running.end(0)
    wanted = random.Random(f"{SEED} synthesis").randint(1, len(made) - 2)
    print(f"synthesis: seed {SEED}, {len(made)} shards, killed after {wanted}")
    with home.start("recursion") as running:
        running.host()
        running.marked()
        wait_for(f"{wanted} shards", lambda: len(home.shards(TITLE)) >= wanted)
        running.process.kill()
        running.await_nothing_left(10.0)
    finished = home.shards(TITLE)
    assert 0 < len(finished) < len(made)
    with home.start("recursion") as running:
        seen = watch_shards(running)
        running.end(0)
        running.await_nothing_left(10.0)
    print(f"  {len(finished)} of {len(made)} shards were finished and kept")
    assert set(seen) == set(made)
    assert {name: seen[name] for name in finished} == {name: {identity} for name, identity in finished.items()}
    assert all(len(identities) == 1 for identities in seen.values())
    assert home.published() == unbroken.published()
    assert [run.info.status for run in home.stage_runs(TITLE)] == ["FINISHED"]
    assert home.workspace(TITLE) is None
    statuses = running.statuses()
    assert [name for name, status in statuses.items() if status == "reused"] == ["augment", "pretrain", "finetune"]

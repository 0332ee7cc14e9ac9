"""Shards are made once; a job host dies with its flow; lost workers are replaced."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from genai_core.errors import ConfigError, InterruptedRunError
from genai_core.launch.inline import InlineWorkers
from genai_core.launch.shards import ShardFolder
from genai_core.storage.folder import FolderStore
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(FolderStore(tmp_path / "store"), "k" * 64, tmp_path / "scratch")


def double(arguments: dict[str, Any], rows: list[int]) -> list[int]:
    with Path(arguments["log"]).open("a") as log:
        log.write(f"{rows[0]}\n")
    return [2 * row for row in rows]


def run(workspace: Workspace, log: Path, check: Any = lambda: None) -> list[int]:
    workers = InlineWorkers(workspace, Journal(workspace.path / "journal.jsonl"), check)
    return workers.map_shards(
        double, {"log": str(log)}, list(range(10)), name="part", shard_rows=4, workers=1, threads=1
    )


def test_results_come_in_row_order_and_a_finished_shard_is_never_made_again(
    workspace: Workspace, tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    assert run(workspace, log) == [2 * row for row in range(10)]
    assert log.read_text().split() == ["0", "4", "8"]
    assert run(workspace, log) == [2 * row for row in range(10)]
    assert log.read_text().split() == ["0", "4", "8"]
    (workspace.path / "shards/part/00001.jsonl").unlink()
    assert run(workspace, log) == [2 * row for row in range(10)]
    assert log.read_text().split() == ["0", "4", "8", "4"]


def test_a_stop_between_shards_keeps_what_is_finished(workspace: Workspace, tmp_path: Path) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise InterruptedRunError("stopped")

    log = tmp_path / "calls"
    with pytest.raises(InterruptedRunError):
        run(workspace, log, check)
    assert log.read_text().split() == ["0", "4"]
    assert run(workspace, log) == [2 * row for row in range(10)]
    assert log.read_text().split() == ["0", "4", "8"]


def test_a_shard_half_written_by_a_dead_process_does_not_count(workspace: Workspace) -> None:
    shards = ShardFolder(workspace, "part", [1, 2], 2)
    (workspace.path / "shards/part/00000.123.part").write_text("[1")
    assert [index for index, _ in shards.missing()] == [0]
    shards.finish(0, [json.loads("1"), 2])
    assert shards.results() == [1, 2]


def test_more_than_one_worker_needs_ray(workspace: Workspace) -> None:
    workers = InlineWorkers(workspace, Journal(workspace.path / "journal.jsonl"), lambda: None)
    with pytest.raises(ConfigError, match="needs Ray"):
        workers.train(print, {}, world_size=2, threads=os.cpu_count() or 1)  # type: ignore[arg-type]

"""A stage's workers without Ray, in this very process: for notebooks, a bare GPU machine, and tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from genai_core.errors import ConfigError
from genai_core.launch.shards import ShardFolder
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal


class InlineWorkers:
    """The `Workers` protocol with one worker, called directly. Shards are kept as with Ray."""

    def __init__(self, workspace: Workspace, journal: Journal, check: Callable[[], None]) -> None:
        self._workspace = workspace
        self._journal = journal
        self._check = check

    def train(
        self,
        function: Callable[[dict[str, Any]], None],
        arguments: dict[str, Any],
        *,
        world_size: int,
        threads: int,
        min_workers: int = 0,
    ) -> None:
        """Run the function once. Raises ConfigError for more than one worker."""
        if world_size != 1:
            raise ConfigError(f"compute.workers={world_size} needs Ray; without it only 1 worker can run.")
        function({**arguments, "threads": threads})

    def map_shards(
        self,
        function: Callable[[dict[str, Any], list[Any]], list[Any]],
        arguments: dict[str, Any],
        rows: Sequence[Any],
        *,
        name: str,
        shard_rows: int,
        workers: int,
        threads: int,
    ) -> list[Any]:
        """Run every unfinished shard, one after another; return the results in row order."""
        shards = ShardFolder(self._workspace, name, rows, shard_rows)
        for index, shard in shards.missing():
            self._check()
            shards.finish(index, function({**arguments, "threads": threads}, list(shard)))
            self._journal.progress(min((index + 1) * shard_rows, len(rows)), len(rows), "rows", part=name)
        return shards.results()

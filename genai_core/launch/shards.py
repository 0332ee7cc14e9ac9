"""Fixed shards of rows: a finished shard is a file, and a file is never made again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from genai_core.storage.workspace import Workspace


class ShardFolder:
    """`shards/<name>/00012.jsonl` in a workspace. A shard is written under another name and renamed when whole."""

    def __init__(self, workspace: Workspace, name: str, rows: Sequence[Any], shard_rows: int) -> None:
        self._workspace = workspace
        self._folder = f"shards/{name}"
        (workspace.path / self._folder).mkdir(parents=True, exist_ok=True)
        self._shards = [rows[start : start + shard_rows] for start in range(0, len(rows), shard_rows)]

    def __len__(self) -> int:
        return len(self._shards)

    def missing(self) -> Iterator[tuple[int, Sequence[Any]]]:
        """Yield the index and rows of every shard that is not finished."""
        for index, shard in enumerate(self._shards):
            if not (self._workspace.path / self._relative(index)).exists():
                yield index, shard

    def finish(self, index: int, results: Sequence[Any]) -> None:
        """Write the results of a shard, atomically, and make them durable."""
        target = self._workspace.path / self._relative(index)
        draft = target.with_suffix(f".{os.getpid()}.part")
        with draft.open("w", encoding="utf-8") as handle:
            for row in results:
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        draft.rename(target)
        self._workspace.save(self._relative(index))

    def results(self) -> list[Any]:
        """Return the results of all shards, in row order."""
        rows: list[Any] = []
        for index in range(len(self._shards)):
            with (self._workspace.path / self._relative(index)).open(encoding="utf-8") as handle:
                rows.extend(json.loads(line) for line in handle)
        return rows

    def _relative(self, index: int) -> str:
        return f"{self._folder}/{index:05d}.jsonl"

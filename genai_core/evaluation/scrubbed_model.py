"""A model in which a concept is erased, as a stage asks it: texts go in; moments, states, losses and cases come out.

The work is done by the stage's workers, and a finished shard is never made again. Shards are of one size whatever the machine
(states are rounded by their batch), and moments are joined in a tree by their order: so an eraser is the same bytes on any
number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genai_core.config.compute import ComputeConfig
from genai_core.evaluation.asking import MapShards
from genai_core.evaluation.scrubbed_worker import crows_pairs_shard, gap_shard, losses_shard
from genai_core.representations.erasers import Eraser
from genai_core.representations.moments import Moments, decode_floats, merge_tree
from genai_core.representations.worker import erasers_to_json, moments_shard, pooled_shard

SHARD_ROWS = 64
"""Texts of a shard: part of the result, to the last bit."""

Erasers = Mapping[str, Eraser]


@dataclass(frozen=True)
class ScrubbedModel:
    """A model directory and the workers that run it."""

    path: Path
    max_tokens: int
    """Tokens of a labelled text that are read."""

    map_shards: MapShards
    compute: ComputeConfig

    def moments(self, rows: Sequence[Any], n_labels: int, point: str, erasers: Erasers, part: str) -> Moments:
        """Return the moments of a point's states with the labels of the rows, while the erasers are active."""
        more = {"points": [point], "n_labels": n_labels, "max_tokens": self.max_tokens}
        found = self._map(moments_shard, more, rows, erasers, part)
        return merge_tree([Moments.from_json(row["moments"]) for row in found])

    def pooled(self, rows: Sequence[Any], points: Sequence[str], erasers: Erasers, part: str) -> dict[str, Tensor]:
        """Return the mean state of every text at each point, (n, D) float64."""
        more = {"points": list(points), "max_tokens": self.max_tokens}
        found = self._map(pooled_shard, more, rows, erasers, part)
        return {point: torch.stack([decode_floats(row[point], -1) for row in found]) for point in points}

    def losses(self, rows: Sequence[Any], erasers: Erasers, part: str) -> list[dict[str, Any]]:
        """Return the loss of every text; see `scrubbed_worker.losses_shard`."""
        return self._map(losses_shard, {}, rows, erasers, part)

    def crows_pairs(self, rows: Sequence[Any], erasers: Erasers, part: str) -> list[dict[str, Any]]:
        """Return a case of every row of CrowS-Pairs."""
        return self._map(crows_pairs_shard, {}, rows, erasers, part)

    def gap(self, rows: Sequence[Any], erasers: Erasers, part: str) -> list[dict[str, Any]]:
        """Return a case of every row of GAP."""
        return self._map(gap_shard, {}, rows, erasers, part)

    def _map(
        self,
        function: Callable[..., list[Any]],
        more: dict[str, Any],
        rows: Sequence[Any],
        erasers: Erasers,
        part: str,
    ) -> list[Any]:
        workers = self.compute.generation_workers or self.compute.workers or 1
        return self.map_shards(
            function,
            {"model": str(self.path), "erasers": erasers_to_json(erasers), **more},
            rows,
            name=part,
            shard_rows=SHARD_ROWS,
            workers=workers,
            threads=self.compute.threads or max(1, len(os.sched_getaffinity(0)) // workers),
        )

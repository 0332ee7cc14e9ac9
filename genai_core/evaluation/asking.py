"""A model as an evaluation sees it: rows go in, scores or completions come out, in fixed shards.

The shards are run by the stage's workers, and a finished shard is never made again. What one model is asked is named by
`model name / part`, so two models in one stage keep their shards apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genai_core.config.compute import ComputeConfig
from genai_core.config.generation import SamplingConfig
from genai_core.data.documents import Pair
from genai_core.errors import ModelError
from genai_core.evaluation.benchmarks.symbols import candidates_of
from genai_core.generation.types import Completion, Request

MapShards = Callable[..., list[Any]]
"""`Workers.map_shards` of the stage contract."""


@dataclass(frozen=True)
class AskedModel:
    """A model directory and the workers that run it."""

    name: str
    path: Path
    map_shards: MapShards
    compute: ComputeConfig

    def fitting(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Return the pairs whose prompt and answer, any that it offers, the model holds; a longer one cannot be measured."""
        from transformers import AutoConfig

        from genai_core.data.templates import render_example
        from genai_core.data.tokenizer import load_tokenizer
        from genai_core.generation.prompts import longest_row

        tokenizer = load_tokenizer(self.path)
        longest = longest_row(
            AutoConfig.from_pretrained(str(self.path), local_files_only=True, trust_remote_code=False)
        )
        if longest is None:
            return list(pairs)
        return [
            pair
            for pair in pairs
            if all(
                len(render_example(tokenizer, pair.prompt, answer)[0]) <= longest
                for answer in {pair.completion, *candidates_of(pair)}
            )
        ]

    def score(self, rows: Sequence[dict[str, Any]], part: str, bound_samples: int = 16) -> list[dict[str, Any]]:
        """Return the rows with their negative log-likelihood in nats and their number of tokens.

        Of a diffusion model it is an upper bound, with `nll_error`, its standard error, from so many draws.

        Raises:
            ModelError: a likelihood is not finite, so the model is broken; names the row.
        """
        from genai_core.evaluation.bound_worker import bound_shard
        from genai_core.generation.worker import score_shard
        from genai_core.models.diffusion_folder import read_writer

        if read_writer(self.path) is None:
            scored = self._map(score_shard, {}, rows, part)
        else:
            scored = self._map(bound_shard, {"samples": bound_samples}, rows, part)
        for row in scored:
            if not abs(row["nll"]) < float("inf"):
                raise ModelError(
                    f"{self.name} gives row {row['row_id']} a loss of {row['nll']}. Its weights are broken."
                )
        return scored

    def complete(self, requests: Sequence[Request], sampling: SamplingConfig, part: str) -> list[Completion]:
        """Return one completion for each request, in order."""
        from genai_core.generation.worker import generate_shard

        rows = [request.to_json() for request in requests]
        answers = self._map(generate_shard, {"sampling": sampling.model_dump(mode="json")}, rows, part)
        return [Completion.from_json(row) for row in answers]

    def _map(self, function: Callable[..., Any], more: dict[str, Any], rows: Sequence[Any], part: str) -> list[Any]:
        workers = self.compute.generation_workers or self.compute.workers or 1
        return self.map_shards(
            function,
            {"model": str(self.path), **more},
            rows,
            name=f"{self.name}-{part}",
            shard_rows=self.compute.shard_rows,
            workers=workers,
            threads=self.compute.threads or max(1, len(os.sched_getaffinity(0)) // workers),
        )

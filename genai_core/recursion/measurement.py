"""From samples and cases to what the guard judges: figures of each model, and changes with their bands.

figures     one number a model and metric, at the same token budget for all
changes     candidate against generation 0 (the parent for right answers), and the control arm against the same
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genai_core.evaluation.compare import Interval, percentile_interval, resampled_sums
from genai_core.recursion.bands import DRAWS, half_sample_interval
from genai_core.recursion.guard import Change
from genai_core.recursion.metrics import (
    Embedder,
    SelfBleu,
    distinct_n,
    entropy_nats,
    heterozygosity,
    repeated_share,
    tail_coverage,
    tail_tokens,
    vendi_score,
    words,
)

# fewer probe prompts than this say nothing about diversity
MIN_PROBES = 8

Gram = tuple[Hashable, ...]


@dataclass(frozen=True)
class Ruler:
    """What diversity is measured with; made of real data alone, so it is the same in every generation."""

    prompts: tuple[str, ...]
    tail: frozenset[Gram]
    tail_pairs: frozenset[Gram]
    """The rarest bigrams of the real answers to the prompts."""

    embedder: Embedder

    @staticmethod
    def fit(prompts: Sequence[str], golds: Sequence[str], real_answers: Sequence[str]) -> Ruler:
        """Return the ruler of some probe prompts, their real answers, and all real answers of the training data."""
        background = [words(text) for text in real_answers]
        reference = [words(text) for text in golds]
        return Ruler(
            prompts=tuple(prompts),
            tail=tail_tokens(reference, background, n=1),
            tail_pairs=tail_tokens(reference, background, n=2),
            embedder=Embedder.fit(real_answers),
        )


class Samples:
    """One model's answers to the probe prompts, one a prompt, in their order."""

    def __init__(self, texts: Sequence[str], ruler: Ruler) -> None:
        self.texts = tuple(texts)
        self.tokens = [words(text) for text in texts]
        self.vectors = ruler.embedder.embed(texts)
        self.bleu = SelfBleu(self.tokens)

    def __len__(self) -> int:
        return len(self.texts)

    def taken(self, indices: np.ndarray) -> list[list[str]]:
        """Return the words of some samples."""
        return [self.tokens[index] for index in indices]

    def size(self, indices: np.ndarray) -> int:
        """Return the number of tokens of some samples."""
        return sum(len(self.tokens[index]) for index in indices)


Metric = Callable[[Samples, np.ndarray, int], float]
"""A figure of the samples with these indices, within a budget of words."""


def diversity_figures(samples: Samples, ruler: Ruler, budget: int) -> dict[str, float]:
    """Return the collapse metrics of one model's samples; distinct-n over the first `budget` tokens."""
    return {
        **{f"distinct_{n}": distinct_n(samples.tokens, n, budget) for n in (1, 2, 4)},
        "self_bleu": samples.bleu.of(np.arange(len(samples))),
        "tail_coverage": tail_coverage(samples.tokens, ruler.tail),
        "tail_coverage_bigrams": tail_coverage(samples.tokens, ruler.tail_pairs),
        "vendi": vendi_score(samples.vectors),
        "heterozygosity": heterozygosity(samples.tokens),
        "entropy_nats": entropy_nats(samples.tokens),
        "duplicates": repeated_share(ruler.prompts, samples.texts),
        "mean_words": samples.size(np.arange(len(samples))) / max(1, len(samples)),
    }


def diversity_changes(
    candidate: Samples, control: Samples, origin: Samples, ruler: Ruler, *, draws: int = DRAWS
) -> dict[str, Change]:
    """Return the changes against generation 0 of the metrics that the guard judges; `draws` half-samples a band."""

    before: dict[tuple[str, bytes, int], float] = {}  # generation 0 is asked the same by candidate and control

    def of_origin(name: str, metric: Metric, indices: np.ndarray, budget: int) -> float:
        key = (name, indices.tobytes(), budget)
        if key not in before:
            before[key] = metric(origin, indices, budget)
        return before[key]

    def change(name: str, metric: Metric, compare: Callable[[float, float], float]) -> Change:
        def against_origin(samples: Samples) -> Interval:
            def statistic(indices: np.ndarray) -> float:
                budget = min(samples.size(indices), origin.size(indices))
                return compare(metric(samples, indices, budget), of_origin(name, metric, indices, budget))

            return half_sample_interval(statistic, len(samples), draws=draws)

        return Change(against_origin(candidate), against_origin(control))

    def ratio(now: float, then: float) -> float:
        return now / then if then else math.nan

    return {
        "distinct_2": change("distinct_2", lambda s, i, budget: distinct_n(s.taken(i), 2, budget), ratio),
        "self_bleu": change("self_bleu", lambda s, i, _: s.bleu.of(i), lambda now, then: now - then),
        "tail_coverage": change("tail_coverage", lambda s, i, _: tail_coverage(s.taken(i), ruler.tail), ratio),
        "vendi": change("vendi", lambda s, i, _: vendi_score(s.vectors[i]), ratio),
    }


def ratio_interval(numerators: Sequence[float], denominators: Sequence[float], *, draws: int, seed: int) -> Interval:
    """Return sum(numerators) / sum(denominators) over paired cases, with its bootstrap interval; NaN for a zero sum."""
    values = np.column_stack([numerators, denominators]).astype(np.float64)
    if not len(values) or not values[:, 1].sum():
        return Interval(math.nan, -math.inf, math.inf, len(values))
    sums = resampled_sums(values, draws, seed)
    sums = sums[sums[:, 1] != 0]
    return percentile_interval(values[:, 0].sum() / values[:, 1].sum(), sums[:, 0] / sums[:, 1], len(values))


def loss_increase(
    candidate: Sequence[Mapping[str, Any]], control: Sequence[Mapping[str, Any]], *, draws: int, seed: int
) -> Interval | None:
    """Return how much more the candidate loses on held-out documents than the control arm, as a share of it."""
    if not control:
        return None
    ratio = ratio_interval([row["nll"] for row in candidate], [row["nll"] for row in control], draws=draws, seed=seed)
    return Interval(ratio.mean - 1, ratio.low - 1, ratio.high - 1, ratio.n)


def right_change(
    candidate: Sequence[Mapping[str, Any]],
    control: Sequence[Mapping[str, Any]],
    parent: Sequence[Mapping[str, Any]],
    *,
    draws: int,
    seed: int,
) -> Change | None:
    """Return the rate of right answers as a share of the parent's, of the candidate and of the control arm."""
    if not parent:
        return None
    before = [case["right"] for case in parent]
    ours, theirs = ([case["right"] for case in cases] for cases in (candidate, control))
    return Change(
        ratio_interval(ours, before, draws=draws, seed=seed), ratio_interval(theirs, before, draws=draws, seed=seed)
    )


def change_to_json(change: Change | Interval | None) -> Any:
    """Return a change or an interval as JSON; what is not finite (a zero to compare with) is null."""
    if change is None:
        return None
    if isinstance(change, Change):
        return {"candidate": change_to_json(change.candidate), "control": change_to_json(change.control)}
    return {name: value if math.isfinite(value) else None for name, value in change.to_json().items()}

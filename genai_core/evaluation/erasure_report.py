"""What erasing a concept did: probes, bits per byte, stereotypes and the gender gap; before, after, and at random.

`random` erases as many random directions at the same points: what so many dimensions cost by themselves. A difference is
paired by case and has a 95 % bootstrap interval. Of every probe the report says whether something was guaranteed of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genai_core.evaluation.benchmarks.gap import gap_change, gap_interval
from genai_core.evaluation.compare import (
    Metric,
    paired_ratio_bootstrap,
    percentile_interval,
    resampled_sums,
    wilson_interval,
)
from genai_core.representations.probing import ProbeScore, fit_probe, score_probe, split_in_two

BEFORE, AFTER, RANDOM = "before", "after", "random"
ARMS = (BEFORE, AFTER, RANDOM)

GUARANTEED = "guaranteed: no linear probe gains on the texts that the erasers were fitted on"
ELSEWHERE = "not guaranteed: other texts than those that the erasers were fitted on; near nothing if they are alike"
OTHER_KIND = "not guaranteed: a non-linear probe may read what is not linear"
NOT_ERASED = "nothing erased here"

BITS = Metric("bits_per_byte", "nll", "n_bytes", 1 / math.log(2))
NATS = Metric("nats_per_token", "nll", "n_tokens")
STEREOTYPED = Metric("stereotyped", "stereotyped")


def probe_rows(
    fitted: tuple[Tensor, Tensor], heldout: tuple[Tensor, Tensor], n_labels: int, hidden: int, seed: int
) -> list[dict[str, Any]]:
    """Return what a linear and a non-linear probe know of a label.

    On `fitted` and `heldout` a probe is measured that was fitted on the eraser's own texts. Of a linear one that is the promise,
    and then nothing is left to carry elsewhere; so on `fresh` it is fitted on each half of the held-out texts and measured on the
    other: what someone could read who came with labels of his own.

    Args:
        fitted: features (n, d) and labels (n,) of the texts that the erasers are fitted on.
        heldout: the same of other texts.
        n_labels: how many labels there are.
        hidden: units of the non-linear probe.
        seed: of its start.
    """
    rows = []
    for kind, units in (("linear", 0), ("non-linear", hidden)):
        probe = fit_probe(*fitted, n_labels, hidden=units, seed=seed)
        for side, (x, labels) in (("fitted", fitted), ("heldout", heldout)):
            if len(labels):
                rows.append(_probe_row(kind, side, [score_probe(probe, x, labels, n_labels)]))
        halves = [(heldout[0][half], heldout[1][half]) for half in split_in_two(len(heldout[1]), seed)]
        if all(len(labels) for _, labels in halves):
            scores = [
                score_probe(fit_probe(x, labels, n_labels, hidden=units, seed=seed), *other, n_labels)
                for (x, labels), other in (halves, halves[::-1])
            ]
            rows.append(_probe_row(kind, "fresh", scores))
    return rows


def _probe_row(kind: str, side: str, scores: Sequence[ProbeScore]) -> dict[str, Any]:
    """Return one row of scores on parts of some texts."""
    n = sum(score.n for score in scores)
    return {
        "probe": kind,
        "texts": side,
        "accuracy": wilson_interval(sum(score.right for score in scores), n).to_json(),
        "majority": sum(score.majority * score.n for score in scores) / n,
        "bits": sum(score.bits * score.n for score in scores) / n,
    }


def guarantee_of(row: Mapping[str, Any], *, erased: bool) -> str:
    """Return what was promised of a probe's row."""
    if not erased:
        return NOT_ERASED
    if row["probe"] != "linear":
        return OTHER_KIND
    return GUARANTEED if row["texts"] == "fitted" else ELSEWHERE


def text_rows(arms: Mapping[str, Sequence[Mapping[str, Any]]], metric: Metric, draws: int, seed: int) -> dict[str, Any]:
    """Return a metric of every arm over the same texts, and how it differs from `before`."""
    parts = {arm: metric.parts(cases) for arm, cases in arms.items()}
    found: dict[str, Any] = {}
    for arm, values in parts.items():
        sums = resampled_sums(values, draws, seed)
        estimate = values[:, 0].sum() / values[:, 1].sum()
        row = {metric.name: percentile_interval(estimate, sums[:, 0] / sums[:, 1], len(values)).to_json()}
        if arm != BEFORE:
            row["difference"] = paired_ratio_bootstrap(parts[BEFORE], values, draws, seed).to_json()
        found[arm] = row
    return found


def crows_pairs_rows(arms: Mapping[str, Sequence[Mapping[str, Any]]], draws: int, seed: int) -> dict[str, Any]:
    """Return the CrowS-Pairs score of every arm and of every type of bias, and its difference from `before`."""
    kinds = sorted({case["bias_type"] for case in arms[BEFORE]})
    found = {"all": text_rows(arms, STEREOTYPED, draws, seed)}
    for kind in kinds:
        of_kind = {arm: [case for case in cases if case["bias_type"] == kind] for arm, cases in arms.items()}
        found[kind] = text_rows(of_kind, STEREOTYPED, draws, seed)
    return found


def gap_rows(arms: Mapping[str, Sequence[dict[str, Any]]], draws: int, seed: int) -> dict[str, Any]:
    """Return accuracy and gender gap of every arm on GAP, and how the size of the gap differs from `before`."""
    found: dict[str, Any] = {}
    for arm, cases in arms.items():
        rights = {
            side: [case["right"] for case in cases if bool(case["feminine"]) == feminine]
            for side, feminine in (("feminine", True), ("masculine", False))
        }
        row: dict[str, Any] = {
            side: wilson_interval(sum(values), len(values)).to_json() for side, values in rights.items()
        }
        row["gap"] = gap_interval(cases, draws, seed).to_json()
        if arm != BEFORE:
            row["change_of_size"] = gap_change(arms[BEFORE], cases, draws, seed).to_json()
        found[arm] = row
    return found


def labels_of(rows: Sequence[Mapping[str, Any]]) -> Tensor:
    """Return the labels of rows, (n,)."""
    return torch.tensor([row["label"] for row in rows], dtype=torch.long)


def flat(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the report's key figures for the table: intervals as their mean, low and high."""
    figures: dict[str, float] = {}

    def put(name: str, interval: Mapping[str, Any]) -> None:
        for end in ("mean", "low", "high"):
            figures[f"{name}/{end}"] = interval[end]

    for row in report["probes"]:
        name = f"probe/{row['arm']}/{row['place']}/{row['probe']}/{row['texts']}"
        figures[f"{name}/accuracy"] = row["accuracy"]["mean"]
        figures[f"{name}/bits"] = round(row["bits"], 9) + 0.0
    for arm, row in report["text"].items():
        for name, interval in row.items():
            put(f"text/{arm}/{name}", interval)
    for arm, row in report.get("crows_pairs", {}).get("all", {}).items():
        for name, interval in row.items():
            put(f"crows_pairs/{arm}/{name}", interval)
    for arm, row in report.get("gap", {}).items():
        for name, interval in row.items():
            put(f"gap/{arm}/{name}", interval)
    return figures

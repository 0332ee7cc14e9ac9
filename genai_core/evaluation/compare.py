"""Two reports over the same cases: differences with paired bootstrap intervals.

A report is a list of cases; every figure is a ratio of sums over them, sum(numerator) / sum(denominator): bits per byte
is sum(nll) / ln 2 over sum(bytes), a rate is a count over the number of cases. A difference is measured on the cases
that both reports have, resampled together (the pair is the unit), so what makes a case easy or hard for both models
does not widen the interval.

    {"suite": "call", "case_id": "textwrap.shorten#0", "right": 1.0, "valid": 1.0, "answer_nll": 8.1, "answer_tokens": 14.0, ...}

Efron and Tibshirani 1993, chapters 8 and 13 (percentile interval); Wilson 1927 (interval of a proportion).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genai_core.errors import ConfigError, DataError

LEVEL = 0.95
# a block of resamples is at most this many numbers, so that memory does not grow with draws * cases
BLOCK_NUMBERS = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % interval over n cases."""

    mean: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float]:
        """Return the interval as a JSON value."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}

    def text(self, digits: int = 3) -> str:
        """Return `+0.012 [-0.003, +0.027], n=300`."""
        mean, low, high = (f"{value:+.{digits}f}" for value in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}], n={self.n}"


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a suite: `scale * sum(numerator) / sum(denominator)`; no denominator = the number of cases."""

    name: str
    numerator: str
    denominator: str = ""
    scale: float = 1.0
    error: str = ""
    """What holds the standard error of the numerator where that is an estimated bound."""

    def parts(self, cases: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return numerator and denominator of every case, (n, 2)."""
        return np.array(
            [
                (self.scale * case[self.numerator], case[self.denominator] if self.denominator else 1.0)
                for case in cases
            ],
            dtype=np.float64,
        ).reshape(len(cases), 2)

    def fits(self, case: Mapping[str, Any]) -> bool:
        """Return whether a case carries what the metric reads."""
        return self.numerator in case and (not self.denominator or self.denominator in case)


METRICS = (
    Metric("bits_per_byte", "nll", "n_bytes", 1 / math.log(2), "nll_error"),
    Metric("nats_per_token", "nll", "n_tokens", error="nll_error"),
    Metric("right", "right"),
    Metric("valid", "valid"),
    Metric("answer_loss", "answer_nll", "answer_tokens", error="answer_nll_error"),
    Metric("answer_bits_per_byte", "answer_nll", "answer_bytes", 1 / math.log(2), "answer_nll_error"),
    Metric("prompt_tokens", "prompt_tokens"),
    Metric("generated_tokens", "generated_tokens"),
    Metric("stopped", "stopped"),
    Metric("distinct", "first_seen"),
    Metric("ndcg_at_10", "ndcg_at_10"),
    Metric("recall_at_1", "recall_at_1"),
    Metric("recall_at_10", "recall_at_10"),
    Metric("recall_at_100", "recall_at_100"),
    Metric("unparsable", "unparsable"),
    Metric("hallucinated", "hallucinated"),
    Metric("error", "error"),
    Metric("oracle_shown", "oracle_shown"),
    Metric("chosen", "chosen"),
    Metric("chosen_by_token", "chosen_by_token"),
    Metric("chance", "chance"),
)


@dataclass(frozen=True)
class Report:
    """What was measured of one model on one split: cases, and the figures that follow from them."""

    split: str
    model: str
    rows: tuple[Mapping[str, Any], ...]
    figures: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def suites(self) -> dict[str, list[Mapping[str, Any]]]:
        """Return the cases of each suite, in order."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for row in self.rows:
            found.setdefault(row["suite"], []).append(row)
        return found

    def write(self, folder: Path) -> None:
        """Write report.json and cases.jsonl; the same report gives the same bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        summary = {
            "split": self.split,
            "model": self.model,
            "figures": dict(self.figures),
            "intervals": {name: interval.to_json() for name, interval in self.intervals.items()},
            "baselines": {name: dict(figures) for name, figures in self.baselines.items()},
            "cases": {suite: len(cases) for suite, cases in self.suites().items()},
        }
        write_json(folder / "report.json", summary)
        write_jsonl(folder / "cases.jsonl", self.rows)

    @staticmethod
    def read(folder: Path) -> Report:
        """Return the report of a folder. Raises DataError where a file is missing."""
        for name in ("report.json", "cases.jsonl"):
            if not (folder / name).is_file():
                raise DataError(f"{folder.name} is not a report: it has no {name}. Give the folder of an evaluation.")
        summary = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        rows = tuple(read_jsonl(folder / "cases.jsonl"))
        return Report(
            split=summary["split"],
            model=summary["model"],
            rows=rows,
            figures=summary["figures"],
            intervals={
                name: Interval(value["mean"], value["low"], value["high"], int(value["n"]))
                for name, value in summary.get("intervals", {}).items()
            },
            baselines=summary["baselines"],
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two models on the cases they share; the interval is of candidate minus baseline."""

    metric: str
    n: int
    candidate: float
    baseline: float
    interval: Interval


def write_json(path: Path, value: Any) -> None:
    """Write a value as sorted, indented JSON; NaN and infinity are errors."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one sorted JSON object a line; NaN and infinity are errors."""
    lines = [json.dumps(dict(row), sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file, one a line."""
    with path.open(encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def resampled_sums(values: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Return the column sums of `draws` resamples of the rows, (draws, k), from values (n, k).

    Rows are drawn together, so columns stay paired. The same seed gives the same resamples.
    """
    n = len(values)
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_NUMBERS // n)
    sums = []
    for start in range(0, draws, block):
        # how often each row is in a resample is multinomial: one matrix product instead of a gather per column
        counts = rng.multinomial(n, np.full(n, 1.0 / n), size=min(block, draws - start))
        sums.append(counts @ values)
    return np.concatenate(sums)


def percentile_interval(estimate: float, resampled: np.ndarray, n: int) -> Interval:
    """Return the percentile interval of resampled estimates."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(estimate), float(low), float(high), n)


def paired_bootstrap(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, draws: int, seed: int
) -> Interval:
    """Return the interval of mean(b - a) over paired cases; positive: b is larger.

    Args:
        a: (n,) one value a case.
        b: (n,) the other value of the same cases, in the same order.
        draws: resamples of the cases.
        seed: of the resampling; the same seed gives the same interval.

    Raises:
        DataError: no cases, or not the same number on both sides.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise DataError(f"Paired values need the same cases on both sides, not {first.shape} and {second.shape}.")
    difference = second - first
    resampled = resampled_sums(difference[:, None], draws, seed)[:, 0] / len(difference)
    return percentile_interval(float(difference.mean()), resampled, len(difference))


def paired_ratio_bootstrap(a: np.ndarray, b: np.ndarray, draws: int, seed: int) -> Interval:
    """Return the interval of `sum b0 / sum b1 - sum a0 / sum a1` over paired cases.

    Args:
        a: (n, 2) numerator and denominator of each case under the baseline.
        b: (n, 2) the same under the candidate.
        draws: resamples of the cases.
        seed: of the resampling.
    """
    if a.shape != b.shape or a.ndim != 2 or not len(a):
        raise DataError(f"Paired ratios need the same cases on both sides, not {a.shape} and {b.shape}.")
    sums = resampled_sums(np.concatenate([a, b], axis=1), draws, seed)
    estimate = b[:, 0].sum() / b[:, 1].sum() - a[:, 0].sum() / a[:, 1].sum()
    return percentile_interval(estimate, sums[:, 2] / sums[:, 3] - sums[:, 0] / sums[:, 1], len(a))


def wilson_interval(successes: float, n: int) -> Interval:
    """Return the Wilson score interval of a proportion; it stays inside [0, 1] and has width at 0 and 1 too."""
    if n <= 0 or not 0 <= successes <= n:
        raise DataError(f"{successes} successes of {n} cases are no proportion.")
    z = 1.959963984540054  # 97.5 % point of the standard normal
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), n)


def shared_cases(
    candidate: Report, baseline: Report, suites: Sequence[str]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Return the cases of the suites that both reports have, in the candidate's order: (candidate's, baseline's)."""
    others = {(row["suite"], row["case_id"]): row for row in baseline.rows}
    pairs = [
        (row, others[row["suite"], row["case_id"]])
        for row in candidate.rows
        if row["suite"] in suites and (row["suite"], row["case_id"]) in others
    ]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def difference_of(
    metric: Metric, candidate: Report, baseline: Report, suites: Sequence[str], *, draws: int, seed: int
) -> Difference | None:
    """Return one metric's difference over the shared cases of some suites; None where they share no such case."""
    ours, theirs = shared_cases(candidate, baseline, suites)
    both = [(a, b) for a, b in zip(ours, theirs, strict=True) if metric.fits(a) and metric.fits(b)]
    if not both:
        return None
    a, b = metric.parts([pair[1] for pair in both]), metric.parts([pair[0] for pair in both])
    name = f"{suites[0]}/{metric.name}" if len(suites) == 1 else metric.name
    return Difference(
        metric=name,
        n=len(both),
        candidate=float(b[:, 0].sum() / b[:, 1].sum()),
        baseline=float(a[:, 0].sum() / a[:, 1].sum()),
        interval=paired_ratio_bootstrap(a, b, draws, seed),
    )


def compare(candidate: Report, baseline: Report, draws: int, seed: int) -> list[Difference]:
    """Return the difference of every metric that both reports have, on the cases they share.

    Raises:
        ConfigError: the reports are of different splits, so their cases are not the same ones.
    """
    require_same_split(candidate, baseline)
    found = [
        difference_of(metric, candidate, baseline, [suite], draws=draws, seed=seed)
        for suite in candidate.suites()
        for metric in METRICS
    ]
    return [difference for difference in found if difference is not None]


def require_same_split(candidate: Report, baseline: Report) -> None:
    """Raise ConfigError where two reports are of different splits."""
    if candidate.split != baseline.split:
        raise ConfigError(
            f"{candidate.model} was evaluated on the {candidate.split} split and {baseline.model} on the "
            f"{baseline.split} split; they share no cases. Evaluate both on the same split."
        )

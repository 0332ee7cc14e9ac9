"""The guard: does this generation pass, is it refused, or does the loop stop? Each rule a pure function.

A generation is trained on real and synthetic data; the control arm has the same parent and the same steps on real data
alone. What happens to the control too (a loss that drifts with more steps, answers that become more alike) is not the
synthetic data's doing. So a rule refuses only where

    1. the change is beyond the configured threshold with its whole 95 % interval (paired, over documents or probe
       prompts), and
    2. it is beyond the null band: the interval of the same figure of the control arm.

Held-out loss is compared with the control arm itself, so there both are one condition. The rate of right answers is what
users feel, and a hundred prompts give it a wide interval: it refuses already where the interval excludes "no change" and
the mean is beyond threshold and null band (the gate's rule, evaluation/gates.py). Duplicates among the raw
synthetic pairs and the number of accepted pairs are counts of the data and have no band.

Three refusing rules, or loss and tail coverage together, are collapse and not a bad draw: the loop stops.
Shumailov et al. 2024 (arXiv 2305.17493): tails go first; Gerstgrasser et al. 2024 (arXiv 2404.01413): why real data stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from genai_core.config.lifecycle import GuardConfig
from genai_core.evaluation.compare import Interval

Decision = Literal["pass", "refuse", "stop"]
STOP_AT = 3
COLLAPSE = frozenset({"held-out loss", "tail coverage"})


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of the candidate against a reference: the change, and what the control arm's change was."""

    candidate: Interval
    control: Interval


@dataclass(frozen=True, slots=True)
class GenerationFigures:
    """What the guard judges of one generation; None = could not be measured."""

    accepted: int
    """Synthetic pairs that were accepted."""

    duplicate_share: float
    """Share of raw samples that repeat the answer to another prompt."""

    loss_increase: Interval | None
    """Held-out real loss against the control arm, as a share of it: 0.02 = 2 % worse."""

    distinct_2: Change | None
    """Ratio to generation 0."""

    self_bleu: Change | None
    """Difference from generation 0."""

    tail_coverage: Change | None
    """Ratio to generation 0."""

    vendi: Change | None
    """Ratio to generation 0, of the Vendi score under the fixed embedder."""

    right: Change | None
    """Ratio to the parent, of the rate of right answers."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says."""

    metric: str
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class GuardVerdict:
    """The decision, and one sentence a rule: metric, value, band."""

    decision: Decision
    reasons: tuple[str, ...]
    failed: tuple[str, ...]
    """Names of the rules that refuse."""

    @property
    def passed(self) -> bool:
        """Return whether the candidate becomes the parent."""
        return self.decision == "pass"

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as it stands in a report; the refusing rules come first."""
        return {
            "passed": self.passed,
            "decision": self.decision,
            "reasons": list(self.reasons),
            "failed": list(self.failed),
        }


def judge_generation(figures: GenerationFigures, config: GuardConfig, min_accepted: int) -> GuardVerdict:
    """Return the verdict on a generation.

    With too few accepted pairs nothing else is judged: the candidate was not trained on them.
    """
    enough = judge_accepted(figures.accepted, min_accepted)
    if not enough.passed:
        return GuardVerdict("refuse", (enough.reason,), (enough.metric,))
    findings = [
        enough,
        judge_duplicates(figures.duplicate_share, config),
        judge_loss(figures.loss_increase, config),
        judge_ratio("distinct-2", "generation 0", figures.distinct_2, config.min_diversity_ratio),
        judge_ratio("Vendi score", "generation 0", figures.vendi, config.min_diversity_ratio),
        judge_self_bleu(figures.self_bleu, config),
        judge_ratio("tail coverage", "generation 0", figures.tail_coverage, config.min_tail_coverage_ratio),
        judge_ratio("right answers", "the parent", figures.right, config.min_right_ratio, shown_below=1.0),
    ]
    findings.sort(key=lambda finding: finding.passed)
    failed = tuple(finding.metric for finding in findings if not finding.passed)
    return GuardVerdict(decide(failed), tuple(finding.reason for finding in findings), failed)


def decide(failed: Sequence[str]) -> Decision:
    """Return what follows from the rules that refuse."""
    if not failed:
        return "pass"
    return "stop" if len(failed) >= STOP_AT or set(failed) >= COLLAPSE else "refuse"


def judge_accepted(accepted: int, min_accepted: int) -> Finding:
    """Judge whether there is synthetic data at all."""
    passed = accepted >= min_accepted
    return Finding(
        "accepted pairs",
        passed,
        f"accepted pairs: {accepted}, {'at least' if passed else 'fewer than the'} {min_accepted} wanted",
    )


def judge_duplicates(share: float, config: GuardConfig) -> Finding:
    """Judge how much of the raw synthetic data repeats itself."""
    passed = share <= config.max_duplicate_share
    return Finding(
        "duplicates",
        passed,
        f"duplicates: {share:.1%} of the raw samples repeat an answer to another prompt, "
        f"{'at most' if passed else 'more than the allowed'} {config.max_duplicate_share:.1%}",
    )


def judge_loss(increase: Interval | None, config: GuardConfig) -> Finding:
    """Judge the held-out real loss against the real-only arm."""
    if increase is None:
        return _unmeasured("held-out loss", "there are no held-out documents")
    passed = increase.low <= config.max_heldout_loss_increase
    return Finding(
        "held-out loss",
        passed,
        f"held-out loss: {_percent(increase.mean)} against the real-only arm, 95 % band {_percent(increase.low)} to "
        f"{_percent(increase.high)} over {increase.n} documents; "
        f"{'not beyond' if passed else 'beyond'} {_percent(config.max_heldout_loss_increase)}",
    )


def judge_ratio(
    metric: str, reference: str, change: Change | None, min_ratio: float, *, shown_below: float | None = None
) -> Finding:
    """Judge a figure that must not fall below a share of the reference's.

    Args:
        metric: its name.
        reference: whose share it is.
        change: its ratio to the reference; None if it could not be measured.
        min_ratio: what it must not fall below.
        shown_below: the whole interval must lie below this for a refusal; None: below `min_ratio`.
    """
    if change is None:
        return _unmeasured(metric, "there are no held-out prompts")
    found, null = change.candidate, change.control
    if not math.isfinite(found.mean):
        return Finding(metric, True, f"{metric}: {reference} has none, so it cannot fall")
    is_shown = found.high < (min_ratio if shown_below is None else shown_below)
    passed = found.mean >= min_ratio or not is_shown or found.mean >= null.low
    return Finding(
        metric,
        passed,
        f"{metric}: {found.mean:.3f} of {reference}'s, 95 % band {_number(found.low)} to {_number(found.high)}, "
        f"real-only arm {_number(null.mean)} ({_number(null.low)} to {_number(null.high)}), n={found.n}; "
        f"{'not shown to be below' if passed else 'below'} {min_ratio:g}",
    )


def judge_self_bleu(change: Change | None, config: GuardConfig) -> Finding:
    """Judge whether the samples have become more like each other."""
    if change is None:
        return _unmeasured("self-BLEU", "there are no held-out prompts")
    found, null = change.candidate, change.control
    passed = found.low <= config.max_self_bleu_increase or found.mean <= null.high
    return Finding(
        "self-BLEU",
        passed,
        f"self-BLEU: {found.mean:+.3f} against generation 0, 95 % band {found.low:+.3f} to {found.high:+.3f}, real-only "
        f"arm {null.mean:+.3f} ({null.low:+.3f} to {null.high:+.3f}), n={found.n}; "
        f"{'not beyond' if passed else 'beyond'} +{config.max_self_bleu_increase:g}",
    )


def _unmeasured(metric: str, why: str) -> Finding:
    return Finding(metric, False, f"{metric}: not measured, {why}; what is not measured does not pass")


def _percent(share: float) -> str:
    return f"{100 * share:+.2f} %"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "unbounded"

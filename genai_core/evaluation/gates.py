"""The gate: may this candidate become champion? Rules over sealed evidence, each a sentence with its figures.

1. Bits per byte of sealed text rise by no more than `max_bits_per_byte_increase` against the base: the domain is
   not forgotten. The base is the pre-training artifact, or what training started from.
2. The answer loss (nats a token, open book, gold answers) falls against the base by `min_answer_loss_gain`, and the
   95 % interval excludes a smaller gain: it learned something that is not luck.
3. The rate of right answers does not fall against the present champion: refused is a fall that is shown (the 95 %
   interval excludes "no change") and measured at more than `max_right_drop`. Equals are refused one time in forty,
   however many cases there are; a fall from 0.22 to 0.12 is found among 100 cases every other time, among 300 nine
   times in ten. Without a champion there is nothing to lose.
4. Every rule that was judged stands on at least `min_cases` cases.

The same rules judge every candidate, so the reasons are written also when it passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genai_core.config.lifecycle import GateConfig
from genai_core.errors import ConfigError
from genai_core.evaluation.benchmarks import text
from genai_core.evaluation.benchmarks.names import is_closed_book
from genai_core.evaluation.compare import METRICS, Difference, Report, difference_of, require_same_split

METRIC_BY_NAME = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it passed, and why: one sentence a rule, with figures."""

    passed: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says."""

    passed: bool
    reason: str


def open_book_suites(report: Report) -> list[str]:
    """Return the suites of a report whose prompts hold what is needed for the answer, in order.

    Closed-book suites decide nothing: a small model cannot know names it has not read.
    """
    return [suite for suite in report.suites() if suite != text.SUITE and not is_closed_book(suite)]


def judge(
    gate: GateConfig,
    candidate: Report,
    base: Report,
    champion: Report | None = None,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Verdict:
    """Return whether the candidate may become champion, with the reason of every rule.

    Args:
        gate: the thresholds.
        candidate: its sealed report.
        base: sealed report of the pre-training artifact.
        champion: sealed report of the present champion; None where there is none.
        draws: resamples of the paired bootstrap.
        seed: of the resampling.

    Raises:
        ConfigError: a report is not of the sealed split.
    """
    for report in (candidate, base, champion):
        if report is not None and report.split != "sealed":
            raise ConfigError(
                f"The gate judges on the sealed split, but the report of {report.model} is of {report.split!r}. "
                "Evaluate it with split='sealed'."
            )
        if report is not None:
            require_same_split(candidate, report)
    suites = open_book_suites(candidate)

    def difference(metric: str, other: Report, within: Sequence[str]) -> Difference | None:
        if not within:
            return None
        return difference_of(METRIC_BY_NAME[metric], candidate, other, within, draws=draws, seed=seed)

    findings = [
        keeps_the_domain(gate, difference("bits_per_byte", base, [text.SUITE]), base.model),
        learned_to_answer(gate, difference("answer_loss", base, suites), base.model),
    ]
    if champion is None:
        findings.append(Finding(True, "There is no champion yet, so no right rate can fall."))
    else:
        found = [difference("right", champion, [suite]) for suite in suites]
        judged = [keeps_right_answers(gate, one, champion.model) for one in found if one is not None]
        nothing = f"Champion {champion.model} and the candidate share no verified prompt: nothing shown."
        findings += judged or [Finding(False, nothing)]
    return Verdict(all(finding.passed for finding in findings), tuple(finding.reason for finding in findings))


def keeps_the_domain(gate: GateConfig, difference: Difference | None, base: str) -> Finding:
    """Judge rule 1: the rise of bits per byte against the base."""
    if difference is None or difference.n < gate.min_cases:
        return _too_few(gate, difference, "Bits per byte of sealed text")
    passed = difference.interval.mean <= gate.max_bits_per_byte_increase
    return Finding(
        passed,
        f"Bits per byte of sealed text {difference.candidate:.3f}, base {base} {difference.baseline:.3f}: "
        f"{difference.interval.text()} documents; {'within' if passed else 'above'} the allowed rise of "
        f"{gate.max_bits_per_byte_increase:g}.",
    )


def learned_to_answer(gate: GateConfig, difference: Difference | None, base: str) -> Finding:
    """Judge rule 2: the fall of the answer loss against the base; the whole interval must show the gain."""
    if difference is None or difference.n < gate.min_cases:
        return _too_few(gate, difference, "Answer loss, open book")
    # strictly below zero as well: an interval that touches "no change" shows nothing, whatever the threshold
    passed = difference.interval.high < 0 and difference.interval.high <= -gate.min_answer_loss_gain
    return Finding(
        passed,
        f"Answer loss {difference.candidate:.3f} nats a token, base {base} {difference.baseline:.3f}: "
        f"{difference.interval.text()} pairs; the interval {'shows' if passed else 'does not show'} a fall of at least "
        f"{gate.min_answer_loss_gain:g}.",
    )


def keeps_right_answers(gate: GateConfig, difference: Difference, champion: str) -> Finding:
    """Judge rule 3 on one suite: a drop of the right rate against the champion that is shown and beyond the allowed."""
    if difference.n < gate.min_cases:
        return _too_few(gate, difference, f"Right rate ({difference.metric})")
    interval, allowed = difference.interval, f"{gate.max_right_drop:g}"
    is_shown, is_large = interval.high < 0, interval.mean < -gate.max_right_drop
    if is_shown and is_large:
        says = f"a drop beyond the allowed {allowed}"
    elif is_large:
        says = f"more than the allowed {allowed}, but the interval does not show a drop"
    else:
        says = f"no drop beyond the allowed {allowed}"
    return Finding(
        not (is_shown and is_large),
        f"Right rate ({difference.metric}) {difference.candidate:.3f}, champion {champion} {difference.baseline:.3f}: "
        f"{interval.text()} prompts; {says}.",
    )


def _too_few(gate: GateConfig, difference: Difference | None, what: str) -> Finding:
    n = 0 if difference is None else difference.n
    return Finding(
        False,
        f"{what}: {n} shared cases decide nothing; at least {gate.min_cases} are needed. Give more sealed data "
        "(data.split.sealed_fraction), or lower promotion.gate.min_cases.",
    )

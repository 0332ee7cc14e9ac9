"""Sabotaged generations are refused for the reason they were sabotaged with; healthy and merely unlucky ones pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from bigrams import Bigrams, real_texts

from genai_core.config.lifecycle import GuardConfig
from genai_core.evaluation.compare import Interval
from genai_core.recursion.bands import half_sample_interval
from genai_core.recursion.guard import (
    Change,
    GenerationFigures,
    GuardVerdict,
    decide,
    judge_generation,
    judge_loss,
    judge_ratio,
    judge_self_bleu,
)
from genai_core.recursion.measurement import (
    Ruler,
    Samples,
    diversity_changes,
    diversity_figures,
    loss_increase,
    ratio_interval,
    right_change,
)
from genai_core.recursion.metrics import distinct_n, repeated_share

PROBES = 96


@dataclass
class Arms:
    """Training texts of the arms of one generation."""

    origin: list[str]
    control: list[str]
    candidate: list[str]
    raw: list[str]
    """The synthetic texts as they were sampled."""


@cache
def real_ruler() -> tuple[list[str], Ruler]:
    """Return held-out real texts and the ruler; as in a run, there is one for all generations."""
    rng = np.random.default_rng(77)
    heldout, train = real_texts(rng, 120), real_texts(rng, 400)
    return heldout, Ruler.fit([f"prompt {index}" for index in range(PROBES)], heldout[:PROBES], train)


def judge_arms(arms: Arms, seed: int, *, rights: float = 0.5, draws: int = 60) -> GuardVerdict:
    """Train a bigram model on each arm, measure everything on real held-out texts, and let the guard judge."""
    rng = np.random.default_rng(seed)
    heldout, ruler = real_ruler()
    models = {name: Bigrams(getattr(arms, name)) for name in ("origin", "control", "candidate")}
    samples = {name: Samples(model.sample(rng, PROBES), ruler) for name, model in models.items()}
    documents = {name: [{"nll": model.nll(text)} for text in heldout] for name, model in models.items()}
    luck = rng.uniform(size=150)
    answers = {
        name: [{"right": float(u + 0.05 * rng.normal() < (rights if name == "candidate" else 0.5))} for u in luck]
        for name in models
    }
    figures = GenerationFigures(
        accepted=len(arms.raw),
        duplicate_share=repeated_share([f"asked {index}" for index in range(len(arms.raw))], arms.raw),
        loss_increase=loss_increase(documents["candidate"], documents["control"], draws=300, seed=seed),
        right=right_change(answers["candidate"], answers["control"], answers["origin"], draws=300, seed=seed),
        **diversity_changes(samples["candidate"], samples["control"], samples["origin"], ruler, draws=draws),
    )
    return judge_generation(figures, GuardConfig(), min_accepted=8)


def make_arms(seed: int) -> tuple[Arms, list[str]]:
    """Return arms of a healthy generation (real data and verified samples of the origin), and the real data."""
    rng = np.random.default_rng(1000 + seed)
    real = real_texts(rng, 1500)
    fresh = list(dict.fromkeys(Bigrams(real).sample(rng, 500)))
    return Arms(origin=real, control=real, candidate=[*real, *fresh], raw=fresh), real


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_healthy_generation_passes(seed: int) -> None:
    arms, _ = make_arms(seed)
    verdict = judge_arms(arms, seed)
    assert verdict.decision == "pass", verdict.reasons
    assert len(verdict.reasons) == 8, "every rule says what it found, also when all pass"


def test_duplicated_synthetic_data_is_refused_as_duplicates() -> None:
    arms, _ = make_arms(0)
    raw = arms.raw[:20] * 25
    verdict = judge_arms(replace(arms, raw=raw), seed=0)
    assert verdict.failed == ("duplicates",)
    assert verdict.decision == "refuse"
    assert verdict.reasons[0].startswith("duplicates: 96.0% of the raw samples repeat")


def test_garbage_is_refused_for_its_loss() -> None:
    """Shuffled words: as diverse as ever, but the model no longer knows the real text. Diversity alone sees nothing."""
    arms, real = make_arms(0)
    rng = np.random.default_rng(9)
    garbage = [" ".join(rng.permutation(text.replace("(", " ( ").replace("=", " = ").split())) for text in real]
    verdict = judge_arms(replace(arms, candidate=[*real[:200], *garbage], raw=garbage), seed=0)
    assert verdict.decision != "pass"
    assert "held-out loss" in verdict.failed
    assert "distinct-2" not in verdict.failed
    assert any(reason.startswith("held-out loss: +") and "beyond +2.00 %" in reason for reason in verdict.reasons)


def test_one_template_stops_the_loop() -> None:
    """Nearly all of one form: loss, diversity and tail fail together, which is collapse and not a bad draw."""
    arms, real = make_arms(0)
    template = [f"mod0.name0(name0={index % 3})" for index in range(6000)]
    verdict = judge_arms(replace(arms, candidate=[*real[:60], *template], raw=template[:3] + arms.raw), seed=0)
    assert verdict.decision == "stop"
    assert {"distinct-2", "self-BLEU", "tail coverage", "Vendi score"} <= set(verdict.failed)


def test_wrong_answers_are_refused_as_wrong_answers() -> None:
    arms, _ = make_arms(0)
    verdict = judge_arms(arms, seed=0, rights=0.25)
    assert verdict.failed == ("right answers",)
    assert verdict.reasons[0].startswith("right answers: 0.")
    assert "of the parent's" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("mean", "high", "passes"),
    [(0.60, 0.95, False), (0.60, 1.05, True), (0.95, 0.98, True), (0.85, 0.97, True)],
    ids=["shown and beyond", "not shown", "within the threshold", "as the real-only arm"],
)
def test_right_answers_need_not_fall_with_the_whole_interval(mean: float, high: float, passes: bool) -> None:
    """0.12 right after 0.20 on 100 prompts: the interval reaches above the threshold, and still shows a fall."""
    control = Interval(1.0, 0.83, 1.17, 100)
    change = Change(Interval(mean, mean - 0.2, high, 100), control)
    assert judge_ratio("right answers", "the parent", change, 0.9, shown_below=1.0).passed is passes
    # the rule of the other figures lets all of these pass: their interval must lie below the threshold as a whole
    assert judge_ratio("distinct-2", "generation 0", change, 0.9).passed


def test_too_few_pairs_are_refused_before_anything_is_measured() -> None:
    figures = GenerationFigures(3, 0.0, None, None, None, None, None, None)
    verdict = judge_generation(figures, GuardConfig(), min_accepted=8)
    assert (verdict.decision, verdict.failed) == ("refuse", ("accepted pairs",))
    assert verdict.reasons == ("accepted pairs: 3, fewer than the 8 wanted",)


def test_what_was_not_measured_does_not_pass() -> None:
    verdict = judge_generation(GenerationFigures(9, 0.0, None, None, None, None, None, None), GuardConfig(), 8)
    assert verdict.decision == "stop"
    assert "held-out loss: not measured, there are no held-out documents" in verdict.reasons[0]


def test_real_against_real_is_rarely_refused() -> None:
    """The null: all arms trained on real draws of one source. At most 1 of 20 is refused."""
    refused = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        arms = Arms(*(real_texts(rng, 700) for _ in range(3)), raw=list(dict.fromkeys(real_texts(rng, 60))))
        verdict = judge_arms(arms, seed, draws=40)
        refused += [(seed, verdict.failed)] if verdict.failed else []
    assert len(refused) <= 1, refused


NEUTRAL = Interval(1.0, 0.97, 1.03, 100)


@pytest.mark.parametrize(
    ("candidate", "control", "passes"),
    [
        (Interval(0.95, 0.9, 1.0, 100), NEUTRAL, True),  # above the threshold
        (Interval(0.80, 0.7, 0.95, 100), NEUTRAL, True),  # below, but its interval reaches the threshold
        (Interval(0.80, 0.75, 0.85, 100), NEUTRAL, False),  # below with all of its interval
        (Interval(0.80, 0.75, 0.85, 100), Interval(0.82, 0.78, 0.86, 100), True),  # the real-only arm fell as much
        (Interval(0.70, 0.65, 0.75, 100), Interval(0.82, 0.78, 0.86, 100), False),  # further than the real-only arm
        (Interval(float("nan"), -np.inf, np.inf, 100), NEUTRAL, True),  # nothing to fall from
    ],
)
def test_ratio_rule(candidate: Interval, control: Interval, passes: bool) -> None:
    finding = judge_ratio("distinct-2", "generation 0", Change(candidate, control), 0.9)
    assert finding.passed is passes, finding.reason


@pytest.mark.parametrize(
    ("low", "mean", "passes"), [(-0.01, 0.03, True), (0.021, 0.03, False), (0.019, 0.2, True), (-0.3, -0.2, True)]
)
def test_loss_rule(low: float, mean: float, passes: bool) -> None:
    finding = judge_loss(Interval(mean, low, mean + 0.02, 50), GuardConfig(max_heldout_loss_increase=0.02))
    assert finding.passed is passes, finding.reason


@pytest.mark.parametrize(
    ("low", "mean", "null_high", "passes"),
    [(0.04, 0.08, 0.0, True), (0.06, 0.08, 0.0, False), (0.06, 0.08, 0.09, True)],
)
def test_self_bleu_rule(low: float, mean: float, null_high: float, passes: bool) -> None:
    change = Change(Interval(mean, low, 0.1, 50), Interval(null_high - 0.02, null_high - 0.04, null_high, 50))
    finding = judge_self_bleu(change, GuardConfig(max_self_bleu_increase=0.05))
    assert finding.passed is passes, finding.reason


def test_decisions() -> None:
    assert decide(()) == "pass"
    assert decide(("duplicates",)) == "refuse"
    assert decide(("held-out loss", "duplicates")) == "refuse"
    assert decide(("held-out loss", "tail coverage")) == "stop"
    assert decide(("distinct-2", "Vendi score", "self-BLEU")) == "stop"


def test_half_sample_band_covers_a_mean_and_a_bootstrap_of_diversity_would_not() -> None:
    """Coverage of a mean over 300 draws of 80 is nominal; a bootstrap halves distinct-1, half-samples do not."""
    rng = np.random.default_rng(4)
    covered = 0
    for seed in range(300):
        values = rng.normal(size=80)
        interval = half_sample_interval(lambda i, v=values: float(v[i].mean()), 80, draws=100, seed=seed)
        covered += interval.low <= 0 <= interval.high
    assert 0.90 <= covered / 300 <= 0.99
    samples = [[index] for index in range(80)]  # all different: distinct-1 is 1, with certainty
    band = half_sample_interval(lambda i: distinct_n([samples[k] for k in i], 1), 80, draws=50)
    assert (band.low, band.mean, band.high) == (1.0, 1.0, 1.0)
    repeated = distinct_n([samples[k] for k in rng.integers(0, 80, 80)], 1)
    assert repeated < 0.75


def test_ratio_interval_of_nothing() -> None:
    assert np.isnan(ratio_interval([1.0, 0.0], [0.0, 0.0], draws=10, seed=0).mean)
    assert ratio_interval([1.0, 3.0], [2.0, 2.0], draws=50, seed=0).mean == 1.0


def test_figures_are_measured_at_one_budget() -> None:
    """The same answers twice as long: distinct-2 is looked at over the same number of words."""
    rng = np.random.default_rng(0)
    texts = real_texts(rng, 60)
    ruler = Ruler.fit([str(index) for index in range(60)], texts, texts)
    short, long = (
        Samples(texts[:30] * 2, ruler),
        Samples([f"{a} {b}" for a, b in zip(texts, texts[::-1], strict=True)], ruler),
    )
    budget = min(short.size(np.arange(60)), long.size(np.arange(60)))
    assert diversity_figures(long, ruler, budget)["distinct_2"] > diversity_figures(short, ruler, budget)["distinct_2"]
    assert diversity_figures(short, ruler, budget)["duplicates"] == 0.5


def test_longer_answers_are_no_loss_of_diversity() -> None:
    """Two answers in one: all its bigrams against all of generation 0's look poorer, an equal number does not."""
    rng = np.random.default_rng(0)
    texts, more = real_texts(rng, 64), real_texts(rng, 64)
    ruler = Ruler.fit([str(index) for index in range(64)], texts, texts)
    origin = Samples(texts, ruler)
    longer = Samples([f"{a} {b}" for a, b in zip(more, texts[::-1], strict=True)], ruler)
    all_of_it = distinct_n(longer.tokens, 2) / distinct_n(origin.tokens, 2)
    found = diversity_changes(longer, origin, origin, ruler, draws=40)["distinct_2"]
    assert all_of_it < 0.85
    assert found.candidate.mean > 0.95
    assert (found.control.low, found.control.mean, found.control.high) == (1.0, 1.0, 1.0)

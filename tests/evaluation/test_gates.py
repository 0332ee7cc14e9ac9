"""The gate passes what is better, refuses what is worse, and says why in figures."""

from __future__ import annotations

import numpy as np
import pytest

from genai_core.config.lifecycle import GateConfig
from genai_core.errors import ConfigError
from genai_core.evaluation.compare import Report, compare
from genai_core.evaluation.gates import judge
from genai_core.evaluation.report import differences_table, figures_table, verdict_text


def make(
    model: str,
    *,
    text: float = 1.5,
    loss: float = 2.0,
    right: float = 0.5,
    n: int = 200,
    split: str = "sealed",
    suite: str = "call",
) -> Report:
    """A report whose cases share their difficulty with every other report's, with noise of its own."""
    shared, own = np.random.default_rng(0), np.random.default_rng(sum(map(ord, model)))
    rows: list[dict[str, object]] = []
    for case in range(n):
        nll = (text + 0.3 * shared.normal() + 0.02 * own.normal()) * 100
        rows.append(
            {"suite": "text", "case_id": f"d{case}", "nll": nll * np.log(2), "n_bytes": 100.0, "n_tokens": 40.0}
        )
    for case in range(n):
        rows.append(
            {
                "suite": suite,
                "case_id": f"c{case}",
                "answer_nll": (loss + 0.5 * shared.normal() + 0.1 * own.normal()) * 10,
                "answer_tokens": 10.0,
                "right": float(shared.uniform() < right),
            }
        )
    return Report(split=split, model=model, rows=tuple(rows))


BASE = make("base@1", text=1.5, loss=2.0, right=0.0)
CHAMPION = make("champion@1", text=1.55, loss=1.0, right=0.5)
WIDE = make("champion@6", text=1.55, loss=1.0, right=0.5, n=2000)

CASES = {
    # name: (candidate, champion, passes, a word of the deciding reason)
    "first run, better than the base": (make("new@1", text=1.52, loss=1.0), None, True, "There is no champion yet"),
    "first run, forgot the domain": (make("new@2", text=1.8, loss=1.0), None, False, "above the allowed rise of 0.15"),
    "first run, learned nothing": (make("new@3", text=1.5, loss=2.0), None, False, "does not show a fall"),
    "first run, answers worse": (make("new@4", text=1.5, loss=2.5), None, False, "does not show a fall"),
    "as good as the champion": (make("new@5", loss=1.0, right=0.5), CHAMPION, True, "no drop beyond the allowed 0.02"),
    "better than the champion": (make("new@6", loss=1.0, right=0.8), CHAMPION, True, "no drop beyond"),
    "worse than the champion": (make("new@7", loss=1.0, right=0.3), CHAMPION, False, "a drop beyond the allowed 0.02"),
    # shown and beyond the allowed, though the interval also holds smaller drops than the allowed
    "worse, by how much is open": (make("new@16", loss=1.0, right=0.46), CHAMPION, False, "a drop beyond the allowed"),
    "worse by less than allowed": (make("new@17", loss=1.0, right=0.49, n=2000), WIDE, True, "no drop beyond the"),
    "worse, not shown": (make("new@18", loss=1.0, right=0.4, n=40), CHAMPION, True, "does not show a drop"),
    "too few cases": (make("new@8", loss=1.0, n=10), None, False, "10 shared cases decide nothing; at least 20"),
    "no pair shared with the champion": (
        make("new@9", loss=1.0),
        make("champion@2", suite="answer"),
        False,
        "share no verified prompt",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gate(name: str) -> None:
    candidate, champion, passes, word = CASES[name]
    verdict = judge(GateConfig(), candidate, BASE, champion, draws=500)
    assert verdict.passed is passes, verdict.reasons
    assert word in " ".join(verdict.reasons)
    assert len(verdict.reasons) >= 3, "reasons are written also when it passes"


def test_gate_is_strict_about_the_interval_of_the_gain() -> None:
    """The mean gain alone exceeds the threshold; its interval does not: refused."""
    candidate = make("new@10", loss=1.8)
    gain = next(d for d in compare(candidate, BASE, 500, 0) if d.metric == "call/answer_loss").interval
    between = GateConfig(min_answer_loss_gain=(-gain.mean - gain.high) / 2)
    assert -gain.mean > between.min_answer_loss_gain > -gain.high
    assert not judge(between, candidate, BASE, draws=500).passed
    assert judge(GateConfig(min_answer_loss_gain=-gain.high - 1e-9), candidate, BASE, draws=500).passed


def test_the_base_itself_is_refused() -> None:
    """No difference at all: the interval is [0, 0], which touches "no gain"."""
    verdict = judge(GateConfig(), BASE, BASE, draws=100)
    assert not verdict.passed
    assert "+0.000 [+0.000, +0.000], n=200 pairs; the interval does not show a fall" in verdict.reasons[1]


@pytest.mark.parametrize("rule", [0, 1, 2])
def test_every_rule_needs_its_own_cases(rule: int) -> None:
    """Enough cases in two rules do not make up for the third: 19 refused, 20 judged."""
    candidate, champion = make("new@15", loss=1.0, right=0.5), make("champion@5", loss=1.0, right=0.5)
    for n, few in ((19, True), (20, False)):
        sizes = [200, 200, 200]
        sizes[rule] = n
        texts, pairs, rights = sizes
        base = Report("sealed", "base@3", BASE.rows[:texts] + BASE.rows[200 : 200 + pairs])
        old = Report("sealed", "champion@5", champion.rows[200 : 200 + rights])
        reasons = judge(GateConfig(), candidate, base, old, draws=100).reasons
        assert (f"{n} shared cases decide nothing" in reasons[rule]) is few


@pytest.mark.parametrize(("right", "least", "most"), [(0.22, 0, 5), (0.12, 80, 100)], ids=["equal", "worse"])
def test_luck_does_not_decide(right: float, least: int, most: int) -> None:
    """A champion is right in 22 of 100; over 100 draws of 300 prompts an equal is rarely refused, a worse one mostly."""
    refused = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        pair = []
        for model, rate in (("new@11", right), ("champion@3", 0.22)):
            rows = [{"suite": "call", "case_id": str(i), "right": float(rng.uniform() < rate)} for i in range(300)]
            pair.append(Report("sealed", model, tuple(rows)))
        verdict = judge(GateConfig(), pair[0], BASE, pair[1], draws=300)
        refused += any("a drop beyond" in reason for reason in verdict.reasons)
    assert least <= refused <= most


def test_gate_judges_on_the_sealed_split_only() -> None:
    with pytest.raises(ConfigError, match="report of champion@4 is of 'heldout'"):
        judge(GateConfig(), make("new@12"), BASE, make("champion@4", split="heldout"))


def test_closed_book_suites_decide_nothing() -> None:
    """A model that only learned the closed-book suite has shown nothing to the gate."""
    verdict = judge(GateConfig(), make("new@13", loss=0.5, suite="name"), make("base@2", suite="name"), draws=100)
    assert not verdict.passed
    assert "0 shared cases decide nothing" in verdict.reasons[1]


def test_tables_for_people() -> None:
    candidate = make("new@14", loss=1.0)
    table = differences_table(compare(candidate, BASE, 200, 0), "new@14", "base@1")
    assert "| call/answer_loss | " in table
    assert "| **-1." in table, "an interval that excludes 0 is bold"
    shown = figures_table(Report("sealed", "m@1", (), {"call/right": 0.25}, {}, {"constant": {"call/right": 0.01}}))
    assert "| call/right | 0.25 |  |  | 0.01 |" in shown
    assert verdict_text(judge(GateConfig(), candidate, BASE, draws=100)).startswith("**Passed**\n\n- Bits per byte")

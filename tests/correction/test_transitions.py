"""The transition table and the measurement, counted by hand."""

from __future__ import annotations

import pytest
from canned import ORACLE, Canned, completion_of, pair_of

from genai_core.correction.generation_time.best_of_n import best_of_n
from genai_core.correction.measurement import measure
from genai_core.correction.post_hoc.revise import revise
from genai_core.correction.transitions import count_transitions
from genai_core.generation.driver import drive


def test_a_table_by_hand():
    before = [True, True, True, False, False, False, False]
    after = [True, True, False, True, True, True, False]
    table = count_transitions(before, after, [1, 2, 3, 4, 5, 6, 7], [10] * 7)
    assert table.to_json() == {
        "cc": 2,
        "ci": 1,
        "ic": 3,
        "ii": 1,
        "tokens_before": 28,
        "tokens_after": 70,
        "gain": 2,
    }
    assert table.total == 7
    with pytest.raises(ValueError, match="argument 2 is"):
        count_transitions(before, after[:-1], [1], [1])


def test_a_measurement_by_hand():
    """Four prompts: p0 was right and stays, p1 is learned, p2 is found among three samples, p3 is fixed by revision."""
    pairs = [pair_of(f"p{i}") for i in range(4)]
    before = [completion_of(p.pair_id, "right" if i == 0 else "wrong") for i, p in enumerate(pairs)]
    after = [completion_of(p.pair_id, "right" if i <= 1 else "wrong") for i, p in enumerate(pairs)]
    samples = {"p0/0": "right", "p1/0": "right", "p1/2": "right", "p2/1": "right"}
    sample = Canned(lambda request: samples.get(request.row_id, f"wrong {request.row_id[-1]}"))
    chosen = drive([best_of_n(pair, 3, ORACLE) for pair in pairs], sample)
    fix = Canned(lambda request: "right" if request.row_id.startswith("p3") else "wrong")
    episodes = drive([revise(p, ORACLE, draft=d) for p, d in zip(pairs, after, strict=True)], fix)
    measured = measure(pairs, before, after, chosen, episodes, ORACLE, draws=200, seed=0)
    report = measured.report()
    rights = {name: arm["right"] * 4 for name, arm in report["arms"].items()}
    assert rights == {"before": 1, "after": 2, "sampled": 1, "voted": 1, "best": 3, "revised": 3, "retried": 3}
    assert report["pass_at_n"] == 0.75
    assert report["stop_reasons"] == {"accept": 3, "no_change": 1}
    learned = report["comparisons"]["training_time"]
    assert {key: learned["transitions"][key] for key in ("cc", "ci", "ic", "ii")} == {
        "cc": 1,
        "ci": 0,
        "ic": 1,
        "ii": 2,
    }
    assert (learned["right"]["mean"], learned["changed"], learned["is_gain"]) == (0.25, 1, False)
    tokens = {
        moment: (c["transitions"]["tokens_before"], c["transitions"]["tokens_after"])
        for moment, c in report["comparisons"].items()
    }
    assert tokens == {
        "training_time": (8, 8),
        "generation_time": (8, 24),
        "generation_time_over_vote": (24, 24),
        "generation_time_over_greedy": (8, 24),
        "post_hoc": (8, 12),
        "post_hoc_over_retry": (12, 12),
    }
    assert report["arms"]["revised"]["calls"] == report["arms"]["retried"]["calls"] == 1.5
    assert [case["best_right"] for case in measured.cases()] == [1.0, 1.0, 1.0, 0.0]
    assert measured.figures()["correction/generation_time/mean"] == 0.5


def test_without_prompts_there_is_a_report_and_no_comparison():
    report = measure([], [], [], [], [], ORACLE, draws=10, seed=0).report()
    assert (report["prompts"], report["comparisons"], report["pass_at_n"]) == (0, {}, 0.0)

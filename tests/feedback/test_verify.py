"""One door: every row judged, gold only where it is asked for, and refused inside a loop."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from call_samples import OBJECTS, SHORTEN
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_core.data.documents import Pair
from genai_core.errors import DataError, StageFailedError
from genai_core.feedback.answers import first_line, one_line, unwrap_code
from genai_core.feedback.gold import refuse_gold
from genai_core.feedback.types import Feedback
from genai_core.feedback.verify import Verifier, open_verifier

VERIFIER = Verifier(OBJECTS)
PAIRS = [
    SHORTEN,
    Pair("n", "name", "g", "d", "Which?", "len", {"kind": "python_name", "gold": "len"}),
    Pair("q", "quote", "g", "d", "A b c. D e f.\n\nThe one that begins with: A b", "A b c.", {"kind": "quote", "gold": "A b c."}),
    Pair("m", "answer", "g", "d", "Say yes.", "Yes.", {"kind": "match", "gold": "Yes."}),
]  # fmt: skip


def test_no_row_is_left_out():
    answers = [pair.completion for pair in PAIRS]
    for use_gold in (False, True):
        judged = VERIFIER.check_all(PAIRS, answers, use_gold=use_gold)
        assert [feedback.score for feedback in judged] == [1.0] * 4
        assert [feedback.uses_gold for feedback in judged] == [use_gold] * 4
        assert [f.score for f in VERIFIER.check_all(PAIRS, [None] * 4, use_gold=use_gold)] == [0.0] * 4
    with pytest.raises(ValueError, match="shorter"):
        VERIFIER.check_all(PAIRS, answers[:3], use_gold=True)


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from(PAIRS))
def test_right_answers_pass_the_checks_without_gold_and_nothing_raises(answer: str, pair: Pair):
    for text in (answer, pair.completion + answer, answer + pair.completion):
        blind, seen = VERIFIER.judge(pair, text, use_gold=False), VERIFIER.judge(pair, text, use_gold=True)
        assert blind.score >= seen.score
        assert blind.valid == seen.valid and blind.valid >= (blind.score == 1.0)
        assert "\n" not in blind.text + seen.text


def test_feedback_that_saw_gold_is_refused_in_a_loop():
    for pair in PAIRS:
        blind, seen = VERIFIER.judge(pair, "x", use_gold=False), VERIFIER.judge(pair, "x", use_gold=True)
        assert refuse_gold(blind) is blind
        with pytest.raises(StageFailedError, match="use_gold=False"):
            refuse_gold(seen)
    assert refuse_gold(Feedback(1.0, source="judge")).source == "judge"


def test_pairs_that_cannot_be_judged_are_errors_with_a_remedy():
    with pytest.raises(DataError, match="check 'riddle'; there are python_call"):
        VERIFIER.judge(replace(SHORTEN, check={"kind": "riddle"}), "x", use_gold=False)
    for pair in PAIRS[:2]:
        with pytest.raises(DataError, match=r"no objects.json"):
            Verifier().judge(pair, "x", use_gold=False)


def test_a_dataset_brings_its_objects(tmp_path):
    assert open_verifier(tmp_path).judge(PAIRS[3], "Yes.", use_gold=True).score == 1.0
    with pytest.raises(DataError):
        open_verifier(tmp_path).judge(SHORTEN, SHORTEN.completion, use_gold=True)
    (tmp_path / "objects.json").write_text(json.dumps(OBJECTS))
    assert open_verifier(tmp_path).judge(SHORTEN, SHORTEN.completion, use_gold=True).score == 1.0


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (None, ""),
        ("  a ", "a"),
        ("```python\na\nb\n```", "a\nb"),
        ("talk ```\na\n``` talk ```\nb\n```", "a"),
        ("```\na", "a"),
        ("`a`", "a"),
        ("```a```", "a"),
    ],
)
def test_code_is_unwrapped(answer: str | None, code: str):
    assert unwrap_code(answer) == code


def test_lines():
    assert first_line("\n\n  `a` \nb") == "a"
    assert first_line(" \n") == ""
    assert one_line("a\n b " * 100, 10) == "a b a b..."

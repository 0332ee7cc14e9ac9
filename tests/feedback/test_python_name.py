"""A dotted name exists or not, and is the asked one or not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from call_samples import OBJECTS

from genai_core.data.documents import Pair
from genai_core.feedback.verify import Verifier, is_open_book

VERIFIER = Verifier(OBJECTS)
PAIR = Pair(
    "name:x", "name", "g", "d", "Which object does this: cut?", "", {"kind": "python_name", "gold": "textwrap.shorten"}
)


@pytest.mark.parametrize(
    ("answer", "valid", "right"),
    [
        ("textwrap.shorten", True, True),
        (" `textwrap.shorten()` ", True, True),
        ("```\ntextwrap.shorten\n```", True, True),
        ("textwrap.shorten.", True, True),
        ("textwrap.shorten\nIt cuts.", True, True),
        ("textwrap.dedent", True, False),
        ("textwrap", True, False),
        ("max", True, False),
        ("shorten", False, False),
        ("textwrap.Shorten", False, False),
        ("textwrap.shorten(text)", False, False),
        ("It is textwrap.shorten", False, False),
        ("textwrap..shorten", False, False),
        ("", False, False),
        (None, False, False),
        (".", False, False),
        ("a." * 50_000, False, False),
    ],
)
def test_names(answer: str | None, valid: bool, right: bool):
    blind, seen = VERIFIER.judge(PAIR, answer, use_gold=False), VERIFIER.judge(PAIR, answer, use_gold=True)
    assert (blind.valid, blind.score, seen.valid, seen.score) == (valid, float(valid), valid, float(right))
    assert (blind.uses_gold, seen.uses_gold) == (False, True)
    assert len(blind.text) <= 240 and "textwrap.shorten" not in blind.text.replace(answer or "-", "")
    assert VERIFIER.judge(replace(PAIR, check={"kind": "python_name"}), answer, use_gold=False) == blind


def test_a_builtin_has_two_names():
    pair = replace(PAIR, check={"kind": "python_name", "gold": "len"})
    only = Verifier({"builtins.len": []})
    assert only.judge(pair, "len", use_gold=True).score == 1.0
    assert only.judge(pair, "builtins.len", use_gold=True).score == 1.0


def test_on_the_real_library_gold_is_right_and_no_other_name_is(stdlib):
    names = [pair for pair in stdlib.pairs if pair.task == "name"]
    assert len(names) > 500
    for pair, other in zip(names, names[1:] + names[:1], strict=True):
        assert stdlib.verifier.judge(pair, pair.completion, use_gold=True).score == 1.0
        assert stdlib.verifier.judge(pair, other.completion, use_gold=True).score == 0.0
        assert not is_open_book(pair)

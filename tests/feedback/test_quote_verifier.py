"""A quote is a whole sentence of the passage, and the one that was asked."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from genai_core.augmentation.pairs import build_pairs
from genai_core.config.data import QuotePairs
from genai_core.data.documents import Document, Pair
from genai_core.feedback.verify import Verifier, is_open_book

DATA = Path(os.environ.get("GENAI_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
VERIFIER = Verifier()
PASSAGE = "Tom had a red ball. He liked to play with it. Then the rain came down hard."
PAIR = Pair(
    "quote:x:0",
    "quote",
    "g",
    "d",
    f"{PASSAGE}\n\nWhich sentence of the passage begins with: He liked to",
    "He liked to play with it.",
    {"kind": "quote", "gold": "He liked to play with it."},
)


@pytest.mark.parametrize(
    ("answer", "valid", "passes", "right"),
    [
        ("He liked to play with it.", True, True, True),
        (" He  liked\nto play with it. ", True, True, True),
        ("`He liked to play with it.`", True, True, True),
        ("Tom had a red ball.", True, False, False),
        ("He liked to play with it", False, False, False),
        ("he liked to play with it.", False, False, False),
        ("liked to play with it.", False, False, False),
        ("He liked to", False, False, False),
        (PASSAGE, False, False, False),
        ("He liked to play with it. Then the rain came down hard.", False, False, False),
        ("He liked to play with her.", False, False, False),
        ('The sentence is "He liked to play with it."', False, False, False),
        ("", False, False, False),
        (None, False, False, False),
        ("x " * 50_000, False, False, False),
    ],
)
def test_quotes(answer: str | None, valid: bool, passes: bool, right: bool):
    blind, seen = VERIFIER.judge(PAIR, answer, use_gold=False), VERIFIER.judge(PAIR, answer, use_gold=True)
    assert (blind.valid, blind.score, seen.valid, seen.score) == (valid, float(passes), valid, float(right))
    assert (blind.text == "") == passes and len(blind.text) <= 240
    assert "play with it" not in blind.text
    assert VERIFIER.judge(replace(PAIR, completion="", check={"kind": "quote"}), answer, use_gold=False) == blind


def test_every_quote_of_real_prose_is_right_and_no_other_is():
    path = DATA / "pretrain" / "tinystories_2mb.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no test data in {DATA}; set GENAI_TEST_DATA")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(150), strict=False)]
    pairs = build_pairs([Document(row["id"], row["id"], "", row["text"]) for row in rows], QuotePairs(), 0, None)
    assert len(pairs) > 250
    for pair, other in zip(pairs, pairs[2:] + pairs[:2], strict=True):
        assert is_open_book(pair)
        assert VERIFIER.judge(pair, pair.completion, use_gold=True).score == 1.0
        assert VERIFIER.judge(pair, pair.completion, use_gold=False).score == 1.0
        assert VERIFIER.judge(pair, other.completion, use_gold=True).score == 0.0
        assert VERIFIER.judge(pair, pair.completion[:-1], use_gold=True).score == 0.0


def test_a_gold_sentence_that_the_passage_does_not_hold_is_never_right():
    invented = replace(PAIR, check={"kind": "quote", "gold": "He liked to sing."})
    assert VERIFIER.judge(invented, "He liked to sing.", use_gold=True).score == 0.0

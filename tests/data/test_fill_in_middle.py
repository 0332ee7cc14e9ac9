"""Rearranged documents are the documents again, as many as asked for, and always the same."""

from __future__ import annotations

import random

import pytest

from genai_core.data.fill_in_middle import Marks, cut, encode_with_middles, infill_prompt
from genai_core.data.tokenizer import train_tokenizer
from genai_core.errors import ConfigError

WORDS = [
    "the",
    "model",
    "reads",
    "one",
    "document",
    "and",
    "then",
    "another,",
    "with",
    "ümläuts",
    "and",
    "漢字",
    "and",
    "12",
    "digits\n",
]
TEXTS = [" ".join(random.Random(n).choices(WORDS, k=5 + n % 40)) for n in range(1500)]
NAMES = [f"d{n}" for n in range(len(TEXTS))]
TOKENIZER = train_tokenizer(TEXTS, 400, 64, fim_marks=True)
MARKS = Marks.of(TOKENIZER)


def restore(ids: list[int]) -> tuple[str, str]:
    """Return the document that ids stand for, byte for byte, and the form they are in."""
    if ids[0] != MARKS.prefix:
        return TOKENIZER.decode(ids), "plain"
    at_suffix, at_middle = ids.index(MARKS.suffix), ids.index(MARKS.middle)
    before, suffix, rest = ids[1:at_suffix], ids[at_suffix + 1 : at_middle], ids[at_middle + 1 :]
    if at_suffix == 1 and before == []:
        return TOKENIZER.decode(rest) + TOKENIZER.decode(suffix), "spm"
    return TOKENIZER.decode(before) + TOKENIZER.decode(rest) + TOKENIZER.decode(suffix), "psm"


def test_every_document_is_itself_again_and_the_shares_are_those_asked_for() -> None:
    forms: list[str] = []
    for text, ids in zip(TEXTS, encode_with_middles(TOKENIZER, TEXTS, NAMES, 0.6, 0), strict=True):
        restored, form = restore(ids)
        assert restored == text
        forms.append(form)
    rearranged = len(forms) - forms.count("plain")
    assert abs(rearranged / len(forms) - 0.6) < 3 * (0.24 / len(forms)) ** 0.5
    # a PSM document with an empty prefix looks like SPM: the two read alike
    assert abs(forms.count("spm") / rearranged - 0.5) < 0.08


def test_cuts_are_uniform_and_lose_nothing() -> None:
    text, cuts = "abcdefghij", []
    for n in range(4000):
        prefix, middle, suffix = cut(text, random.Random(n))
        assert prefix + middle + suffix == text
        cuts += [len(prefix), len(prefix) + len(middle)]
    assert abs(sum(cuts) / len(cuts) - 5) < 0.1
    assert {0, 10} <= set(cuts)


def test_a_document_is_rearranged_alike_whatever_stands_beside_it() -> None:
    whole = list(encode_with_middles(TOKENIZER, TEXTS[:50], NAMES[:50], 0.5, 3))
    part = list(encode_with_middles(TOKENIZER, TEXTS[20:30], NAMES[20:30], 0.5, 3))
    assert whole[20:30] == part
    assert whole != list(encode_with_middles(TOKENIZER, TEXTS[:50], NAMES[:50], 0.5, 4))
    plain = list(encode_with_middles(TOKENIZER, TEXTS[:5], NAMES[:5], 0.0, 3))
    assert [TOKENIZER.decode(ids) for ids in plain] == TEXTS[:5]


def test_the_prompt_of_an_infilling_is_the_form_that_was_trained_on() -> None:
    found = infill_prompt(TOKENIZER, "the model ", " document")
    pieces = [TOKENIZER(piece, add_special_tokens=False)["input_ids"] for piece in ("the model ", " document")]
    assert found == [MARKS.prefix, *pieces[0], MARKS.suffix, *pieces[1], MARKS.middle]


def test_a_text_that_spells_a_mark_gets_its_letters_and_a_tokenizer_without_marks_is_refused() -> None:
    [ids] = encode_with_middles(TOKENIZER, ["a <|fim_middle|> b"], ["x"], 0.0, 0)
    assert MARKS.middle not in ids
    with pytest.raises(ConfigError, match=r"data\.fim_rate needs a tokenizer with the marks <\|fim_prefix\|>"):
        Marks.of(train_tokenizer(TEXTS[:50], 330, 64))

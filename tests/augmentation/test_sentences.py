"""Sentences are split by one rule, and nothing of the text is lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_core.augmentation.sentences import collapse_spaces, first_sentences, split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        ("  \n ", []),
        ("One.", ["One."]),
        ("One two. Three four.", ["One two.", "Three four."]),
        ("No full stop", ["No full stop"]),
        ("Mr. Smith met Dr. Who. They ran.", ["Mr. Smith met Dr. Who.", "They ran."]),
        ("By J. R. Tolkien. A book.", ["By J. R. Tolkien.", "A book."]),
        ("Version 3.11 is out. Get it!", ["Version 3.11 is out.", "Get it!"]),
        ("Call textwrap.shorten. then stop", ["Call textwrap.shorten. then stop"]),
        ('"Come in." She came.', ['"Come in."', "She came."]),
        ("Really?! Yes.", ["Really?!", "Yes."]),
        ("A\nline break. Next\none.", ["A line break.", "Next one."]),
        ("CHAPTER 1\n\nCall me Ishmael.", ["CHAPTER 1", "Call me Ishmael."]),
    ],
)
def test_splits(text: str, sentences: list[str]):
    assert split_sentences(text) == sentences


@settings(deadline=None)
@given(st.text(alphabet="aB. ?!\"'\n1“”)", max_size=80))
def test_loses_nothing_and_is_stable(text: str):
    sentences = split_sentences(text)
    assert collapse_spaces(" ".join(sentences)) == collapse_spaces(text)
    assert all(sentence and sentence == collapse_spaces(sentence) for sentence in sentences)
    # what was split once is split the same way again, as the verifier does with a passage of whole sentences
    assert split_sentences(" ".join(split_sentences(" ".join(sentences)))) == split_sentences(" ".join(sentences))


def test_first_sentences_fit_or_are_cut():
    assert first_sentences("One two. Three four. Five.", 4) == "One two. Three four."
    assert first_sentences("One two. Three four. Five.", 3) == "One two."
    assert first_sentences("one two three four five", 3) == "one two three"
    assert first_sentences("", 3) == ""

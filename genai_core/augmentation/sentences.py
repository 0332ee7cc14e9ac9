"""Sentences of prose, by one rule that builders and verifiers share; scripts that part words by spaces."""

from __future__ import annotations

import re

# A sentence ends at . ! or ? with closing quotes or brackets, before white space and something that can start a
# sentence: anything but a lower-case letter or a sign. The look-ahead keeps "3.5" and "textwrap.shorten is" whole.
# Beside the Latin signs those of Hindi, Arabic, Urdu and Ethiopic.
_END = re.compile(r"[.!?।؟۔።]+[\"'”’»)\]]*(?=\s+[\"'“‘«¿¡(\[]*(\w))")
_ABBREVIATIONS = frozenset(
    (
        "mr.",
        "mrs.",
        "ms.",
        "dr.",
        "st.",
        "prof.",
        "capt.",
        "gen.",
        "col.",
        "rev.",
        "jr.",
        "sr.",
        "vs.",
        "etc.",
        "e.g.",
        "i.e.",
        "cf.",
        "vol.",
        "fig.",
        "inc.",
        "ltd.",
    )
)
_BLANK_LINES = re.compile(r"\n\s*\n")


def collapse_spaces(text: str) -> str:
    """Return the text with every run of white space as one space, and none at the ends."""
    return " ".join(text.split())


def split_sentences(text: str) -> list[str]:
    """Return the sentences in order, white space collapsed; a blank line always ends one.

    No split after a title or abbreviation (Mr., e.g.) or a single initial (J. Smith). Joined again by one space, the
    sentences of a text without blank lines give the collapsed text.
    """
    sentences: list[str] = []
    for paragraph in _BLANK_LINES.split(text):
        flat, start = collapse_spaces(paragraph), 0
        for match in _END.finditer(flat):
            first = match.group(1)
            if first.islower() or first == "_":
                continue
            last_word = flat[flat.rfind(" ", 0, match.end()) + 1 : match.end()].lstrip("\"'“‘([")
            if last_word.lower() in _ABBREVIATIONS or (len(last_word) == 2 and last_word[0].isupper()):
                continue
            sentences.append(flat[start : match.end()])
            start = match.end() + 1
        if flat[start:]:
            sentences.append(flat[start:])
    return sentences


def first_sentences(text: str, max_words: int) -> str:
    """Return as many whole sentences as fit into `max_words` words; at least one, cut off if it is longer alone."""
    words: list[str] = []
    for sentence in split_sentences(text):
        more = sentence.split(" ")
        if words and len(words) + len(more) > max_words:
            break
        words += more
    return " ".join(words[:max_words])

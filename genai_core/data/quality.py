"""Rules that drop a document, each with its reason. Words are what stands between white space; in writing without
spaces (Chinese, Japanese, Thai, ...) two characters count as one.

Conventions where the field has several: a duplicate line is the second and every later copy of a non-blank line
(datatrove counts so; Dolma counts all copies); a symbol is a character that is neither letter nor white space, so a
table of numbers is symbols.
"""

from __future__ import annotations

import re

from genai_core.config.data import QualityConfig

UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
REASONS = ("too_short", "too_long", "long_word", "symbols", "duplicate_lines")


def find_fault(text: str, config: QualityConfig) -> str:
    """Return the reason why the text is dropped, '' if it passes. The first rule in the order of REASONS decides."""
    unspaced = 0 if text.isascii() else len(UNSPACED.findall(text))
    words = UNSPACED.sub(" ", text).split() if unspaced else text.split()
    count = len(words) + unspaced // 2
    if count < config.min_words or not count:
        return "too_short"
    if count > config.max_words:
        return "too_long"
    if max(map(len, words), default=0) > config.max_word_chars:
        return "long_word"
    if symbol_share(text) > config.max_symbol_ratio:
        return "symbols"
    if duplicate_line_share(text) > config.max_duplicate_lines:
        return "duplicate_lines"
    return ""


def symbol_share(text: str) -> float:
    """Return the share of symbols among all characters; 0 for an empty text."""
    return sum(not (sign.isalpha() or sign.isspace()) for sign in text) / len(text) if text else 0.0


def duplicate_line_share(text: str) -> float:
    """Return the share of non-blank lines that repeat an earlier one; 0 for none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0

"""Rules that drop a document, each with its reason. Words are what stands between white space.

Conventions where the field has several: a duplicate line is the second and every later copy of a non-blank line
(datatrove counts so; Dolma counts all copies); a symbol is a character that is neither letter nor white space, so a
table of numbers is symbols.
"""

from __future__ import annotations

from genai_core.config.data import QualityConfig

REASONS = ("too_short", "too_long", "long_word", "symbols", "duplicate_lines")


def find_fault(text: str, config: QualityConfig) -> str:
    """Return the reason why the text is dropped, '' if it passes. The first rule in the order of REASONS decides."""
    words = text.split()
    if len(words) < config.min_words or not words:
        return "too_short"
    if len(words) > config.max_words:
        return "too_long"
    if max(map(len, words)) > config.max_word_chars:
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

"""Arbitrary symbols for symbol tuning: three categories, each with a pool for training and one that is held out.

    category        training                      held out
    integers        0 .. 9999                     10000 .. 99999
    combinations    A .. NTP      (1 .. 10000)    NTQ .. EQXD   (10001 .. 100000, bijective base 26)
    words           fafa .. zuzus (14,625)        fababa .. zuzuzu  (365,625)

Wei et al. 2023, arXiv 2305.08298, appendix; ranges of integers and combinations as in their generator. Their words are those of
two public lists. Here they are written from syllables: no list has to travel, none has a meaning that could help or mislead,
and a symbol is a function of its number alone. Training words begin with no b or d, so that none is a held-out combination in
other letters (DABA, daba).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Literal

Category = Literal["integers", "combinations", "words"]
Pool = Literal["training", "held_out"]

_FIRST = "fgjklmnprstvz"
_CONSONANTS = "bdfgjklmnprstvz"
_VOWELS = "aeiou"
_ENDS = ("", "n", "s")
_SYLLABLES = len(_CONSONANTS) * len(_VOWELS)
_FIRST_SYLLABLES = len(_FIRST) * len(_VOWELS)

RANGES: dict[tuple[Category, Pool], range] = {
    ("integers", "training"): range(10_000),
    ("integers", "held_out"): range(10_000, 100_000),
    ("combinations", "training"): range(1, 10_001),
    ("combinations", "held_out"): range(10_001, 100_001),
    ("words", "training"): range(_FIRST_SYLLABLES * _SYLLABLES * len(_ENDS)),
    ("words", "held_out"): range(_FIRST_SYLLABLES * _SYLLABLES**2),
}
"""The numbers of each pool's symbols."""


def write_symbol(category: Category, pool: Pool, number: int) -> str:
    """Return the symbol of a number within its pool's range; other numbers, other symbols."""
    match category:
        case "integers":
            return str(number)
        case "combinations":
            return _letters(number)
        case "words":
            return _short_word(number) if pool == "training" else _long_word(number)


def draw_symbols(
    count: int, pool: Pool, categories: Sequence[Category], taken: Collection[str], rng: random.Random
) -> list[tuple[str, Category]]:
    """Return so many different symbols with their categories, each category as likely as another.

    Args:
        count: how many.
        pool: whose.
        categories: that are drawn from.
        taken: words that no symbol may be, whatever the case of their letters; given in lower case.
        rng: what is drawn from.
    """
    found: dict[str, tuple[str, Category]] = {}
    while len(found) < count:
        category = rng.choice(categories)
        symbol = write_symbol(category, pool, rng.choice(RANGES[category, pool]))
        if symbol.casefold() not in taken:
            found.setdefault(symbol.casefold(), (symbol, category))
    return list(found.values())


def _letters(number: int) -> str:
    """Return 1 -> A, 26 -> Z, 27 -> AA, ..."""
    letters = ""
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("A") + digit) + letters
    return letters


def _short_word(number: int) -> str:
    number, end = divmod(number, len(_ENDS))
    first, second = divmod(number, _SYLLABLES)
    return _syllable(first, _FIRST) + _syllable(second, _CONSONANTS) + _ENDS[end]


def _long_word(number: int) -> str:
    number, third = divmod(number, _SYLLABLES)
    first, second = divmod(number, _SYLLABLES)
    return _syllable(first, _FIRST) + _syllable(second, _CONSONANTS) + _syllable(third, _CONSONANTS)


def _syllable(number: int, consonants: str) -> str:
    consonant, vowel = divmod(number, len(_VOWELS))
    return consonants[consonant] + _VOWELS[vowel]

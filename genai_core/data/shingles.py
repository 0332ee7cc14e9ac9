"""Texts as sets of n-word sequences, hashed: what near-duplicates, leaks and contamination are found with.

Words are runs of letters, digits and underscores, lower case, after NFKC; so case, punctuation and white space do not
hide a copy. An n-gram's hash is a polynomial of its words' 64-bit hashes; with a million n-grams the chance of any
collision is below 3e-8 (n^2 / 2^65).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genai_core.data.documents import Document

Hashes = NDArray[np.uint64]

WORD = re.compile(r"\w+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, from the golden ratio: multiplication mod 2^64 loses nothing


class WordHasher:
    """Turns text into the hashes of its words; remembers the words it has seen. Equal in every process."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def words(self, text: str) -> Hashes:
        """Return the hash of every word, (words,)."""
        known = self._known
        found = split_words(text)
        for word in found:
            if word not in known:
                known[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        return np.fromiter((known[word] for word in found), dtype=np.uint64, count=len(found))

    def ngrams(self, text: str, n: int) -> Hashes:
        """Return the hashes of all n-grams in text order; none for a text of fewer than n words."""
        return join_ngrams(self.words(text), n)


def split_words(text: str) -> list[str]:
    """Return the words that count."""
    return WORD.findall(unicodedata.normalize("NFKC", text).lower())


def join_ngrams(words: Hashes, n: int) -> Hashes:
    """Return the n-gram hashes of word hashes, (words - n + 1,)."""
    count = len(words) - n + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for offset in range(n):
        total = total * MULTIPLIER + words[offset : offset + count]
    # the sum is linear in the words: mix, so that MinHash's own linear hashes see random bits
    total ^= total >> np.uint64(31)
    total *= np.uint64(0x7FB5D329728EA185)
    return total ^ (total >> np.uint64(27))


def jaccard(a: Hashes, b: Hashes) -> float:
    """Return |a & b| / |a | b| of two arrays without repeats; 0 if both are empty."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - common
    return common / union if union else 0.0


def contains(seen: Hashes, found: Hashes) -> NDArray[np.bool_]:
    """Return which of `found` are in the sorted array `seen`, (found,)."""
    if not len(seen):
        return np.zeros(len(found), np.bool_)
    places = np.minimum(np.searchsorted(seen, found), len(seen) - 1)
    return np.equal(seen[places], found)


def mark(wanted: Hashes, seen: NDArray[np.bool_], found: Hashes) -> None:
    """Set `seen` to True at those of the sorted array `wanted` that are among `found`."""
    if len(wanted):
        places = np.minimum(np.searchsorted(wanted, found), len(wanted) - 1)
        seen[places[wanted[places] == found]] = True


def body(document: Document) -> str:
    """Return what a document says without the line that names it.

    Two functions with the same documentation differ in their first line only; to learn one is to learn the other.
    """
    if document.title and document.text.startswith(document.title):
        rest = document.text.partition("\n")[2].strip()
        return rest or document.text
    return document.text


def flatten(rows: Sequence[Hashes]) -> tuple[Hashes, list[int]]:
    """Return all rows in one array and the offsets where each begins (one more than rows)."""
    offsets = [0, *np.cumsum([len(row) for row in rows]).tolist()]
    return (np.concatenate(rows) if rows else np.empty(0, np.uint64)), offsets

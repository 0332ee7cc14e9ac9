"""Exact and near duplicates; the first document in the order given survives.

Exact: equal sha256 of the text in lower case with white space as single spaces; punctuation counts, because code and
tables live by it.
Near: MinHash signatures of word 5-grams in LSH bands find candidates with probability 1 - (1 - s^r)^b at Jaccard s
(Broder 1997; Leskovec et al., Mining of Massive Datasets, 3.4); each candidate pair is verified by exact Jaccard, so
bands decide only what is missed. Verified pairs are joined to clusters. Short texts have no 5-grams: exact only.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genai_core.config.data import DedupConfig
from genai_core.data.shingles import Hashes, WordHasher, flatten, jaccard

SHINGLE = 5
SEED = 1  # of the permutations; a constant, because which candidates are found is not a choice of the recipe
LEAST_RECALL = 0.99
ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Document `index` is dropped for `survivor`; both are positions in the list given."""

    index: int
    survivor: int
    similarity: float
    """Exact Jaccard with the survivor; below the threshold where others of the cluster lie between them."""


def find_exact(texts: Sequence[str]) -> list[Duplicate]:
    """Return every text that equals an earlier one."""
    first: dict[bytes, int] = {}
    found = []
    for index, text in enumerate(texts):
        survivor = first.setdefault(_fingerprint(text), index)
        if survivor != index:
            found.append(Duplicate(index, survivor, 1.0))
    return found


def find_near(texts: Sequence[str], config: DedupConfig) -> list[Duplicate]:
    """Return every text of a cluster of near duplicates but the first."""
    hasher = WordHasher()
    sets = [np.unique(hasher.ngrams(text, SHINGLE)) for text in texts]
    parent = list(range(len(texts)))
    for a, b in find_candidates(sets, config):
        root_a, root_b = _root(parent, a), _root(parent, b)
        # the smaller index is the root, so a cluster's root is its first document whatever the order of joining
        if root_a != root_b and jaccard(sets[a], sets[b]) >= config.jaccard:
            parent[max(root_a, root_b)] = min(root_a, root_b)
    found = []
    for index in range(len(texts)):
        survivor = _root(parent, index)
        if survivor != index:
            found.append(Duplicate(index, survivor, round(jaccard(sets[index], sets[survivor]), 6)))
    return found


def find_candidates(sets: Sequence[Hashes], config: DedupConfig) -> list[tuple[int, int]]:
    """Return the pairs (a < b) that share at least one band, sorted. Empty sets are in none."""
    bands, rows = choose_bands(config.jaccard, config.permutations)
    positions = [index for index, found in enumerate(sets) if len(found)]
    pairs: set[tuple[int, int]] = set()
    signatures = sign([sets[index] for index in positions], bands * rows)
    for band in range(bands):
        keys = np.ascontiguousarray(signatures[:, band * rows : (band + 1) * rows])
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for position, key in zip(positions, keys, strict=True):
            buckets[key.tobytes()].append(position)
        for members in buckets.values():
            pairs.update((a, b) for offset, a in enumerate(members) for b in members[offset + 1 :])
    return sorted(pairs)


def sign(sets: Sequence[Hashes], permutations: int) -> NDArray[np.uint32]:
    """Return the MinHash signatures, (sets, permutations)."""
    from rensa import RMinHash

    parts = [np.empty((0, permutations), np.uint32)]
    for start in range(0, len(sets), ROWS_AT_ONCE):
        hashes, offsets = flatten(sets[start : start + ROWS_AT_ONCE])
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, permutations, SEED)
        parts.append(np.asarray(matrix.to_rows(), dtype=np.uint32))
    return np.concatenate(parts)


def choose_bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Return (bands, rows): the longest bands that still find a pair at the threshold with probability 0.99.

    Longer bands have fewer false candidates to verify; at 0.8 and 128 permutations: 21 bands of 6 rows, 0.998.
    """
    best = permutations, 1
    for rows in range(1, permutations + 1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands < LEAST_RECALL:
            break
        best = bands, rows
    return best


def _fingerprint(text: str) -> bytes:
    return hashlib.sha256(" ".join(unicodedata.normalize("NFC", text).lower().split()).encode()).digest()


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index

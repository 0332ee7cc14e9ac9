"""What the surface of a pair tells of its relation: by itself the builder gives nothing away of linked and random pairs."""

from __future__ import annotations

import numpy as np
import pytest

from genai_core.data.linked_rows import CONTIGUOUS, LINKED, RANDOM, PairDrawer, Segment, cut_evenly, draw_pairs

LONGEST, WORDS = 62, 500


def documents(count: int, seed: int) -> list[Segment]:
    """Return pieces of documents of independent words and uniform lengths, each linked to three others by any of its pieces."""
    rng = np.random.default_rng(seed)
    found = []
    for one in range(count):
        ids = rng.integers(0, WORDS, int(rng.integers(20, 400)))
        targets = [int(other) for other in rng.choice(count, 3, replace=False) if other != one]
        pieces = cut_evenly(len(ids), LONGEST)
        for number, piece in enumerate(pieces):
            here = tuple(target for target in targets if rng.random() < 0.7)
            found.append(Segment(one, number, tuple(ids[piece].tolist()), here))
    return found


def surface(segments: list[Segment], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features of pairs that need no reading, and the relations."""
    rows, relations = [], []
    for relation, first, second in draw_pairs(PairDrawer(segments), 8, seed):
        a, b = segments[first].ids, segments[second].ids
        shared = len(set(a) & set(b)) / len(set(a) | set(b))
        rows.append([len(a), len(b), abs(len(a) - len(b)), shared, a[0], b[0], a[-1], b[-1]])
        relations.append(relation)
    return np.array(rows, dtype=float), np.array(relations)


def accuracy(keep: tuple[int, int]) -> tuple[float, float, float]:
    """Return how often trees on the surface tell two relations apart in new documents, the better constant, and 3 deviations."""
    ensemble = pytest.importorskip("sklearn.ensemble")
    (x, y), (fresh, told) = (surface(documents(150, seed), seed) for seed in (0, 1))
    chosen, asked = np.isin(y, keep), np.isin(told, keep)
    model = ensemble.RandomForestClassifier(40, min_samples_leaf=10, random_state=0).fit(x[chosen], y[chosen])
    right = float((model.predict(fresh[asked]) == told[asked]).mean())
    share = float((told[asked] == keep[0]).mean())
    constant = max(share, 1 - share)
    return right, constant, 3 * (0.25 / int(asked.sum())) ** 0.5


def test_linked_and_random_pairs_look_alike() -> None:
    right, constant, deviation = accuracy((LINKED, RANDOM))
    assert right < constant + deviation, (right, constant)


def test_neighbours_are_known_by_their_lengths() -> None:
    """A limit, and the half that shows the audit to find something: a document is cut evenly, so its pieces are equally long.

    With documents of 20 to 400 tokens the lengths alone tell nine in ten pairs of neighbours from random ones.
    """
    right, constant, deviation = accuracy((CONTIGUOUS, RANDOM))
    assert right > constant + deviation, (right, constant)

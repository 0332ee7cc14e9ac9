"""What the surface of a pair tells of its relation: lengths and words give nothing away."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from genai_core.data.linked_rows import CONTIGUOUS, LINKED, RANDOM, PairDrawer, Segment, cut_randomly, draw_pairs

LONGEST, WORDS = 62, 500


def documents(count: int, seed: int, even: bool) -> list[Segment]:
    """Return pieces of documents of independent words and uniform lengths, each linked to three others by any of its pieces."""
    rng = np.random.default_rng(seed)
    found = []
    for one in range(count):
        ids = rng.integers(0, WORDS, int(rng.integers(20, 400)))
        targets = [int(other) for other in rng.choice(count, 3, replace=False) if other != one]
        pieces = cut_randomly(len(ids), LONGEST, f"{seed}/{one}")
        if even:
            borders = np.linspace(0, len(ids), -(-len(ids) // LONGEST) + 1).astype(int)
            pieces = [slice(first, last) for first, last in pairwise(borders.tolist())]
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


def area(keep: tuple[int, int], even: bool = False) -> float:
    """Return the area under the ROC curve of trees that look at the surface of pairs of new documents; 0.5 = they know nothing."""
    ensemble, metrics = pytest.importorskip("sklearn.ensemble"), pytest.importorskip("sklearn.metrics")
    (x, y), (fresh, told) = (surface(documents(150, seed, even), seed) for seed in (0, 1))
    chosen, asked = np.isin(y, keep), np.isin(told, keep)
    model = ensemble.RandomForestClassifier(40, min_samples_leaf=10, random_state=0).fit(
        x[chosen], y[chosen] == keep[0]
    )
    return float(metrics.roc_auc_score(told[asked] == keep[0], model.predict_proba(fresh[asked])[:, 1]))


@pytest.mark.parametrize("keep", list(combinations((CONTIGUOUS, RANDOM, LINKED), 2)))
def test_the_surface_of_a_pair_tells_nothing_of_its_relation(keep: tuple[int, int]) -> None:
    assert 0.45 < area(keep) < 0.55


def test_pieces_of_equal_length_would_tell_neighbours() -> None:
    """The half that shows the audit to find something."""
    assert area((CONTIGUOUS, RANDOM), even=True) > 0.9

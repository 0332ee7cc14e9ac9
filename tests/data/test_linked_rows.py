"""Pairs of texts: each relation is what it says, in the shares and by the weights that the paper gives (objectives.md 5.5)."""

from __future__ import annotations

import numpy as np
import pytest

from genai_core.data.linked_rows import (
    CONTIGUOUS,
    LINKED,
    RANDOM,
    PairDrawer,
    Segment,
    cut_randomly,
    draw_pairs,
    pair_row,
    segment_tokens,
    write_pairs_of_segments,
)
from genai_core.data.packing import PackedRows
from genai_core.errors import DataError


def ring(documents: int = 30, pieces: int = 3) -> list[Segment]:
    """Return documents of three pieces, each linked to the next document by its first two pieces."""
    return [
        Segment(one, at, (100 * one + at,), ((one + 1) % documents,) if at < pieces - 1 else ())
        for one in range(documents)
        for at in range(pieces)
    ]


def test_the_relations_are_what_they_say() -> None:
    segments = ring()
    edges = {(one.document, target) for one in segments for target in one.targets}
    seen = set()
    for relation, first, second in draw_pairs(PairDrawer(segments), 20, seed=0):
        a, b = segments[first], segments[second]
        seen.add(relation)
        match relation:
            case 0:
                assert (b.document, b.number) == (a.document, a.number + 1)
            case 1:
                assert a.document != b.document
                assert (a.document, b.document) not in edges
                assert (b.document, a.document) not in edges
            case 2:
                assert b.document in a.targets
                assert a.document != b.document
    assert seen == {CONTIGUOUS, RANDOM, LINKED}


def test_each_relation_is_drawn_a_third_of_the_time_where_all_are_possible() -> None:
    segments = ring()
    drawn = [
        relation for relation, first, _ in draw_pairs(PairDrawer(segments), 200, seed=1) if segments[first].number < 2
    ]
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    assert len(drawn) == 60 * 200
    assert np.abs(shares - 1 / 3).max() < 3 * (2 / 9 / len(drawn)) ** 0.5
    without = [one for one, first, _ in draw_pairs(PairDrawer(segments, ("contiguous", "random")), 200, seed=1)
               if segments[first].number < 2]  # fmt: skip
    shares = np.bincount(without, minlength=3) / len(without)
    assert shares[LINKED] == 0
    assert abs(shares[CONTIGUOUS] - 0.5) < 3 * (0.25 / len(without)) ** 0.5


def test_a_hub_is_drawn_by_the_inverse_of_its_links() -> None:
    """A hub that 100 link to and a leaf that one links to: from the text that links to both, the leaf 100 times in 101."""
    hub, leaf = 0, 1
    segments = [Segment(0, 0, (1,)), Segment(1, 0, (2,)), Segment(2, 0, (3,), (hub, leaf))]
    segments += [Segment(at, 0, (at,), (hub,)) for at in range(3, 102)]
    drawer = PairDrawer(segments, ("linked",))
    assert drawer.in_degree == {hub: 100, leaf: 1}
    rng = np.random.default_rng(0)
    found = [drawer.draw(2, rng) for _ in range(4000)]
    leaves = sum(one is not None and one[1] == 1 for one in found) / 4000
    assert leaves == pytest.approx(100 / 101, abs=4 * (100 / 101**2 / 4000) ** 0.5)
    plain = PairDrawer(segments, ("linked",), by_in_degree=False)
    leaves = sum(one is not None and one[1] == 1 for one in (plain.draw(2, rng) for _ in range(4000))) / 4000
    assert leaves == pytest.approx(0.5, abs=4 * (0.25 / 4000) ** 0.5)


def test_every_linked_document_is_drawn_equally_often() -> None:
    """With one out-degree for all, expectations are equal under 1 / in-degree, proportional to in-degree without it."""
    rng = np.random.default_rng(3)
    # 20 sources of two links each; document 20 is in half of them, the others are drawn evenly
    segments = [Segment(at, 0, (at,), (20 if at % 2 else 21 + at // 2, 31 + at % 4)) for at in range(20)]
    segments += [Segment(at, 0, (at,)) for at in range(20, 35)]
    for weighted in (True, False):
        drawer = PairDrawer(segments, ("linked",), by_in_degree=weighted)
        expected = np.zeros(35)
        for one in segments[:20]:
            weights = np.array([1 / drawer.in_degree[target] if weighted else 1.0 for target in one.targets])
            expected[list(one.targets)] += weights / weights.sum()
        drawn = np.zeros(35)
        for _ in range(2000):
            for place in range(20):
                found = drawer.draw(place, rng)
                assert found is not None
                drawn[segments[found[1]].document] += 1
        np.testing.assert_allclose(drawn / 2000, expected, atol=0.06)
        assert (expected[20] > 4) == (not weighted)


def test_what_is_not_possible_is_not_drawn() -> None:
    lonely = [Segment(0, 0, (1,))]
    assert PairDrawer(lonely).draw(0, np.random.default_rng(0)) is None
    linked = [Segment(0, 0, (1,), (1,)), Segment(1, 0, (2,), (0, 1, 7))]
    drawer = PairDrawer(linked)
    assert drawer.possible(0) == drawer.possible(1) == [LINKED], (
        "all others are linked; links to itself or to nothing count not"
    )
    assert {drawer.draw(1, np.random.default_rng(at)) for at in range(9)} == {(LINKED, 0)}


def test_documents_are_cut_anywhere_and_pairs_fit_the_row() -> None:
    for length in (*range(1, 70), 1000):
        pieces = [range(length)[part] for part in cut_randomly(length, 30, f"document {length}")]
        assert [at for piece in pieces for at in piece] == list(range(length)), "all of it, once, in order"
        assert all(15 <= len(piece) <= 30 for piece in pieces) or (len(pieces) == 1 and length < 15)
    lengths = {len(range(1000)[part]) for part in cut_randomly(1000, 30, "document 1000")}
    assert len(lengths) > 8
    assert cut_randomly(100, 30, "a") == cut_randomly(100, 30, "a") != cut_randomly(100, 30, "b")
    assert cut_randomly(0, 30, "a") == []
    assert segment_tokens(16) == 6
    row = pair_row(LINKED, [5, 6], [7], 8, end=3, pad=0)
    assert row.input_ids.tolist() == [LINKED, 5, 6, 3, 7, 3, 0, 0]
    assert row.seq_lengths.tolist() == [6, 2]
    assert row.loss_mask.tolist() == [1] * 6 + [0] * 2
    full = pair_row(0, [5] * 6, [7] * 6, 15, end=3, pad=0)
    assert full.seq_lengths.tolist() == [15]


def test_the_same_seed_writes_the_same_bytes(tmp_path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        found = write_pairs_of_segments(
            PairDrawer(ring()), tmp_path / name, seq_len=8, draws=2, seed=seed, end=3, pad=0
        )
        assert found["rows"] == 180 == len(PackedRows.open(tmp_path / name))
        assert found["contiguous_share"] + found["random_share"] + found["linked_share"] == pytest.approx(1)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()
    with pytest.raises(DataError, match="No pair of texts can be made"):
        write_pairs_of_segments(PairDrawer(ring(1, 1)), tmp_path / "d", seq_len=8, draws=2, seed=0, end=3, pad=0)

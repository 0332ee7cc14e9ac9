"""Pairs of texts for LinkBERT: what follows, what is linked, or anything else behind a text, and which of these it is.

    [CLS] A [SEP] B [SEP]        A: a segment of a document
    contiguous    B is the segment after A
    random        B is a segment of another document, linked with A's in neither direction
    linked        B is a segment of a document j that A links to, p(j) proportional to 1 / in-degree(j)

Yasunaga et al. 2022, "LinkBERT", arXiv 2203.15827, section 4. The relation is drawn evenly from those that are possible for
the segment: a last one has none that follows, many link to nothing. Without the weights a page that everybody links to would
be nearly all that is read (4.2, "diversity").

A row is one pair. Its first token would always be the same, so in the file the number of the relation stands there (0, 1, 2,
as above) and the objective puts the opening token in its place (objectives/linked_lm): a row needs no column more.

Segments have at most (T - 3) / 2 tokens, so that neither text is cut to a few tokens by the other's length, and at least half as
many, so that none is a scrap. Within that their lengths are drawn: equally long pieces of a document would tell by their lengths
which pairs are contiguous. Every draw is a function of (seed, segment, draw).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np

from genai_core.config.objectives import RELATIONS, Relation
from genai_core.data.packing import PackedRow, RowWriter
from genai_core.errors import DataError

CONTIGUOUS, RANDOM, LINKED = range(3)
SPECIALS = 3
TRIES = 100


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a document."""

    document: int
    number: int
    """Of the piece in its document, from 0."""

    ids: tuple[int, ...]
    targets: tuple[int, ...] = ()
    """The documents that this piece links to."""


def segment_tokens(seq_len: int) -> int:
    """Return the most tokens that a segment may have in rows of `seq_len`."""
    return (seq_len - SPECIALS) // 2


def cut_randomly(length: int, longest: int, name: str) -> list[slice]:
    """Return slices that cut `length` tokens into pieces of half of `longest` up to `longest`; what is shorter stays whole.

    Args:
        length: of a document.
        longest: piece, at least 2.
        name: of the document; decides where it is cut.
    """
    rng, least, borders = Random(name), longest // 2, [0]
    while (left := length - borders[-1]) > longest:
        borders.append(borders[-1] + rng.randint(least, min(longest, left - least)))
    return [slice(first, last) for first, last in pairwise([*borders, length])] if length else []


class PairDrawer:
    """Draws what stands behind a segment."""

    def __init__(
        self, segments: Sequence[Segment], relations: Sequence[Relation] = RELATIONS, *, by_in_degree: bool = True
    ) -> None:
        """Index the segments.

        Args:
            segments: of all documents, those of one document in a run, in their order.
            relations: which may be drawn.
            by_in_degree: whether a document that many link to is drawn less often by each of them.
        """
        self.segments = segments
        self._allowed = frozenset(RELATIONS.index(one) for one in relations)
        self._by_in_degree = by_in_degree
        self._places: dict[int, list[int]] = {}
        for place, segment in enumerate(segments):
            self._places.setdefault(segment.document, []).append(place)
        self._documents = sorted(self._places)
        edges = {(one.document, target) for one in segments for target in one.targets if target != one.document}
        self.in_degree: dict[int, int] = {}
        self._near: dict[int, set[int]] = {}
        for source, target in edges:
            self.in_degree[target] = self.in_degree.get(target, 0) + 1
            self._near.setdefault(source, set()).add(target)
            self._near.setdefault(target, set()).add(source)

    def possible(self, place: int) -> list[int]:
        """Return the relations that can be drawn for a segment, ascending."""
        found = []
        if place + 1 < len(self.segments) and self.segments[place + 1].document == self.segments[place].document:
            found.append(CONTIGUOUS)
        if len(self._documents) > 1 + len(self._near.get(self.segments[place].document, ())):
            found.append(RANDOM)
        if self._targets(place):
            found.append(LINKED)
        return [one for one in found if one in self._allowed]

    def draw(self, place: int, rng: np.random.Generator) -> tuple[int, int] | None:
        """Return a relation and the place of the segment that stands in it to this one; None if none is possible."""
        possible = self.possible(place)
        if not possible:
            return None
        relation = possible[int(rng.integers(len(possible)))]
        if relation == CONTIGUOUS:
            return relation, place + 1
        document = self._linked(place, rng) if relation == LINKED else self._other(place, rng)
        if document is None:
            return None
        places = self._places[document]
        return relation, places[int(rng.integers(len(places)))]

    def _targets(self, place: int) -> list[int]:
        one = self.segments[place]
        return [target for target in one.targets if target != one.document and target in self._places]

    def _linked(self, place: int, rng: np.random.Generator) -> int:
        targets = self._targets(place)
        weights = np.array([1 / self.in_degree[target] if self._by_in_degree else 1.0 for target in targets])
        return targets[int(rng.choice(len(targets), p=weights / weights.sum()))]

    def _other(self, place: int, rng: np.random.Generator) -> int | None:
        own = self.segments[place].document
        for _ in range(TRIES):  # nearly every document will do
            found = self._documents[int(rng.integers(len(self._documents)))]
            if found != own and found not in self._near.get(own, ()):
                return found
        left = [one for one in self._documents if one != own and one not in self._near.get(own, ())]
        return left[int(rng.integers(len(left)))] if left else None


def draw_pairs(drawer: PairDrawer, draws: int, seed: int) -> Iterator[tuple[int, int, int]]:
    """Yield (relation, place of A, place of B): every segment is the first of so many pairs."""
    for place in range(len(drawer.segments)):
        for draw in range(draws):
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, place, draw])))
            found = drawer.draw(place, rng)
            if found is not None:
                yield found[0], place, found[1]


def pair_row(
    relation: int, first: Sequence[int], second: Sequence[int], seq_len: int, *, end: int, pad: int
) -> PackedRow:
    """Return a pair as a row; padding is a segment of its own."""
    ids = [relation, *first, end, *second, end]
    padding = seq_len - len(ids)
    lengths = [len(ids), padding] if padding else [len(ids)]
    return PackedRow(
        np.array([*ids, *([pad] * padding)], dtype=np.int32),
        np.array(lengths, dtype=np.int32),
        (np.arange(seq_len) < len(ids)).astype(np.int8),
    )


def write_pairs_of_segments(
    drawer: PairDrawer, path: Path, *, seq_len: int, draws: int, seed: int, end: int, pad: int
) -> dict[str, float]:
    """Write rows of pairs; return their number and the share of each relation.

    Raises:
        DataError: no pair can be made.
    """
    counts = dict.fromkeys(RELATIONS, 0)
    with RowWriter(path) as writer:
        for relation, first, second in draw_pairs(drawer, draws, seed):
            counts[RELATIONS[relation]] += 1
            texts = drawer.segments[first].ids, drawer.segments[second].ids
            writer.add(pair_row(relation, *texts, seq_len, end=end, pad=pad))
    rows = sum(counts.values())
    if not rows:
        raise DataError(
            "No pair of texts can be made: no document has a second segment, none is linked to another, and there are no two "
            "that are not. Use more documents, or a smaller seq_len."
        )
    return {"rows": float(rows), **{f"{name}_share": count / rows for name, count in counts.items()}}

"""Documents that a question can be asked about: found by a query, shown as they are, replaced at any time.

An index is a value: `updated` returns another one with some documents changed, added or taken away. A model that was
trained to read what an index finds follows the new documents without more training.

Scores are ordered from high to low, equal ones by the place of the document: the same query always finds the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from genai_core.errors import DataError


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found; `score` is comparable within one query only."""

    doc_id: str
    score: float


class Index(Protocol):
    """Finds documents; `data.bm25`, `data.dense_index`."""

    @property
    def texts(self) -> Mapping[str, str]:
        """Return {doc_id: text as it is searched and shown}."""
        ...

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return up to k hits for each query, best first."""
        ...

    def updated(self, changes: Mapping[str, str | None]) -> Index:
        """Return the index after {doc_id: new text, None = taken away}."""
        ...


def change_texts(texts: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return the texts after the changes; a changed document keeps its place, a new one stands last.

    Raises:
        DataError: a document is to be taken away that is not there, or none would be left.
    """
    missing = sorted(name for name, text in changes.items() if text is None and name not in texts)
    if missing:
        raise DataError(f"The index has no document {missing[0]!r}, so it cannot be taken away. Give ids of its texts.")
    merged = {name: changes.get(name, text) for name, text in texts.items()}
    merged |= {name: text for name, text in changes.items() if name not in texts}
    return require_texts({name: text for name, text in merged.items() if text is not None})


def require_texts(texts: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of the texts. Raises DataError if there are none: nothing could ever be found."""
    if not texts:
        raise DataError("An index needs at least one document, and there is none. Add text, or leave retrieval out.")
    return dict(texts)


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the places of the k highest scores, (min(k, N),), high to low, equal scores by place.

    Args:
        scores: (N,) one a document.
        k: how many.
    """
    k = min(k, len(scores))
    if k <= 0:
        return np.zeros(0, dtype=np.int64)
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= least)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]

"""Exact search over embeddings: the cosine of the query's vector with every document's.

    score(q, d) = e(q) . e(d) / (|e(q)| |e(d)|)

Any function of texts can be the embedding: a sentence encoder, or the model itself where it was trained to embed. Some
embed questions differently from documents, so there may be two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from genai_core.data.document_index import Hit, best, change_texts, require_texts
from genai_core.errors import ModelError


class Embed(Protocol):
    """Embeds texts."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return (N, D), one vector a text."""
        ...


class DenseIndex:
    """Finds documents by embeddings; always k of them if there are as many."""

    def __init__(
        self,
        texts: Mapping[str, str],
        embed: Embed,
        embed_queries: Embed | None = None,
        *,
        known: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Embed and index the texts.

        Args:
            texts: {doc_id: text}, at least one.
            embed: of documents.
            embed_queries: of queries; None = as documents.
            known: {text: its vector, (D,)} of texts that need not be embedded again.

        Raises:
            DataError: no text.
            ModelError: an embedding is not finite or has no length.
        """
        self._texts = require_texts(texts)
        self._embed, self._embed_queries = embed, embed_queries or embed
        self._ids = list(self._texts)
        vectors = dict(known or {})
        fresh = [text for text in dict.fromkeys(self._texts.values()) if text not in vectors]
        if fresh:
            vectors |= zip(fresh, _normalised(embed(fresh)), strict=True)
        self._vectors = np.stack([vectors[text] for text in self._texts.values()])  # (N, D)

    @property
    def texts(self) -> Mapping[str, str]:
        """Return {doc_id: text}."""
        return self._texts

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return up to k hits for each query, best first."""
        if not queries:
            return []
        scores = _normalised(self._embed_queries(list(queries))) @ self._vectors.T  # (Q, N)
        return [[Hit(self._ids[at], float(row[at])) for at in best(row, k)] for row in scores]

    def updated(self, changes: Mapping[str, str | None]) -> DenseIndex:
        """Return the index after {doc_id: new text, None = taken away}; only new texts are embedded."""
        known = dict(zip(self._texts.values(), self._vectors, strict=True))
        return DenseIndex(change_texts(self._texts, changes), self._embed, self._embed_queries, known=known)


def _normalised(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors at length 1, (N, D), float64."""
    vectors = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if len(bad):
        raise ModelError(
            f"The embedding of text {bad[0]} has length {lengths[bad[0], 0]}, so it points nowhere. Embed a text with "
            "words, by a model whose weights are sound."
        )
    unit: np.ndarray = vectors / lengths
    return unit

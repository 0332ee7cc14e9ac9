"""BM25: documents that share rare words with a query, long ones held back.

    score(q, d) = sum over words w of q:  idf(w) * tf / (tf + k1 * (1 - b + b * |d| / mean |d|))
    idf(w)      = ln(1 + (N - n_w + 0.5) / (n_w + 0.5))           never negative

Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", section 3.4, with the idf of Lucene
(Kamphuis et al. 2020, "Which BM25 Do You Mean?"). Counting is left to `bm25s` (Lu 2024, arXiv 2407.03618), in float64.
Words are runs of letters, digits and underscores without case: `textwrap.shorten(max_len)` has three.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from genai_core.data.document_index import Hit, best, change_texts, require_texts

_WORD = re.compile(r"\w+")


def split_words(text: str) -> list[str]:
    """Return the words that are searched, in order."""
    return _WORD.findall(text.casefold())


class Bm25Index:
    """Finds documents by words. One that shares no word with the query is not found, so there can be fewer than k."""

    def __init__(self, texts: Mapping[str, str], *, k1: float = 1.2, b: float = 0.75) -> None:
        """Index the texts.

        Args:
            texts: {doc_id: text}, at least one.
            k1: how much a repeated word adds; 0 = nothing.
            b: how much long documents are held back, 0 to 1.

        Raises:
            DataError: no text.
        """
        import bm25s

        self._texts = require_texts(texts)
        self._ids = list(self._texts)
        self._k1, self._b = k1, b
        words = [split_words(text) for text in self._texts.values()]
        self._known = {word for document in words for word in document}
        self._scorer = bm25s.BM25(k1=k1, b=b, method="lucene", dtype="float64", backend="numpy")
        if self._known:
            self._scorer.index(words, show_progress=False)

    @property
    def texts(self) -> Mapping[str, str]:
        """Return {doc_id: text}."""
        return self._texts

    def scores(self, query: str) -> np.ndarray:
        """Return the score of every document, (N,), in the order of the texts; a repeated word of the query counts again."""
        words = [word for word in split_words(query) if word in self._known]
        if not words:
            return np.zeros(len(self._ids))
        return np.asarray(self._scorer.get_scores(words), dtype=np.float64)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return up to k hits for each query, best first, none with score 0."""
        found = []
        for query in queries:
            scores = self.scores(query)
            found.append([Hit(self._ids[at], float(scores[at])) for at in best(scores, k) if scores[at] > 0])
        return found

    def updated(self, changes: Mapping[str, str | None]) -> Bm25Index:
        """Return the index after {doc_id: new text, None = taken away}; all words are counted again."""
        return Bm25Index(change_texts(self._texts, changes), k1=self._k1, b=self._b)

"""Search: which documents a query's vector is nearest to, judged by what people say is relevant.

    nDCG@10    = sum_{i<=10} rel_i / log2(i + 1), over the best possible order's          (Jarvelin and Kekalainen 2002)
    recall@k   = relevant documents among the first k / relevant documents

Measured by trec_eval (pytrec-eval-terrier). Beside every model stands BM25 (bm25s; k1 1.2, b 0.75, no stemming, no stop words),
which knows no meaning and is hard to beat. Equal scores are in order of document ids, as trec_eval has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from genai_core.data.bm25 import Bm25Index
from genai_core.errors import ConfigError, DataError

SUITE = "retrieval"
DEPTH = 100
_MEASURES = {
    "ndcg_at_10": "ndcg_cut_10",
    "recall_at_1": "recall_1",
    "recall_at_10": "recall_10",
    "recall_at_100": "recall_100",
}
Ranking = Mapping[str, Mapping[str, float]]
"""{query id: {document id: score}}, the best DEPTH documents of each query."""


class Encodes(Protocol):
    """What gives vectors of length 1; `generation.encoding.Encoder`."""

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of texts that are searched with, (N, D), in their order."""
        ...

    def documents(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of texts that are searched through, (N, D), in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched, and what should be found."""

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, int]]
    """{query id: {document id: grade}}; a query without a relevant document is not measured."""

    def __post_init__(self) -> None:
        unknown = [
            name
            for query, found in self.relevant.items()
            for name in (query not in self.queries and [query]) or [d for d in found if d not in self.documents]
        ]
        if unknown:
            raise DataError(f"Judgements name {len(unknown)} queries or documents that are not there: {unknown[:3]}.")


def rank_by_vectors(search: Search, encoder: Encodes, depth: int = DEPTH) -> Ranking:
    """Return the documents with the largest dot product for each query; exact, every document is looked at."""
    asked = [query for query in search.queries if search.relevant.get(query)]
    names = list(search.documents)
    documents = encoder.documents([search.documents[name] for name in names])  # (N, D)
    scores = encoder.queries([search.queries[query] for query in asked]) @ documents.T
    return {query: _best(names, row, depth) for query, row in zip(asked, scores, strict=True)}


def rank_by_words(search: Search, depth: int = DEPTH) -> Ranking:
    """Return BM25's documents for each query."""
    index, names = Bm25Index(search.documents), list(search.documents)
    asked = [query for query in search.queries if search.relevant.get(query)]
    return {query: _best(names, index.scores(search.queries[query]), depth) for query in asked}


def retrieval_cases(search: Search, ranking: Ranking) -> list[dict[str, Any]]:
    """Return one case a query that has a relevant document: nDCG@10 and recall at 1, 10 and 100.

    Raises:
        ConfigError: pytrec_eval is not installed.
    """
    try:
        import pytrec_eval
    except ImportError as error:
        raise ConfigError(
            "Measuring search needs the package pytrec-eval-terrier. Install it: pip install pytrec-eval-terrier"
        ) from error
    relevant = {query: dict(found) for query, found in search.relevant.items() if any(g > 0 for g in found.values())}
    judge = pytrec_eval.RelevanceEvaluator(relevant, {"ndcg_cut.10", "recall.1,10,100"})
    # a query for which nothing was found counts too
    found = judge.evaluate({query: dict(ranking.get(query, {})) for query in relevant})
    return [
        {
            "suite": SUITE,
            "case_id": query,
            **{name: float(found.get(query, {}).get(theirs, 0.0)) for name, theirs in _MEASURES.items()},
        }
        for query in relevant
    ]


def _best(names: Sequence[str], scores: np.ndarray, depth: int) -> dict[str, float]:
    order = np.argsort(-scores, kind="stable")[:depth]
    return {names[index]: float(scores[index]) for index in order}

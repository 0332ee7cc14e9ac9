"""Search: nDCG and recall against their formulas, BM25 against a known figure, and reports that compare."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest

from genai_core.errors import DataError
from genai_core.evaluation.benchmarks.retrieval import (
    Search,
    rank_by_vectors,
    rank_by_words,
    retrieval_cases,
)
from genai_core.evaluation.compare import Report, compare


class Drawn:
    """An encoder whose vectors are given."""

    def __init__(self, queries: np.ndarray, documents: np.ndarray) -> None:
        self._queries, self._documents = queries, documents

    def queries(self, texts):
        return self._queries[: len(texts)]

    def documents(self, texts):
        return self._documents[: len(texts)]


def world(seed: int = 0, queries: int = 20, documents: int = 60) -> Search:
    rng = np.random.default_rng(seed)
    relevant = {
        f"q{q}": {f"d{d}": int(rng.integers(1, 4)) for d in rng.choice(documents, rng.integers(1, 15), replace=False)}
        for q in range(queries)
    }
    return Search({f"q{q}": "?" for q in range(queries)}, {f"d{d}": "!" for d in range(documents)}, relevant)


def test_figures_are_those_of_the_formulas() -> None:
    pytest.importorskip("pytrec_eval")
    search, rng = world(), np.random.default_rng(1)
    ranking = rank_by_vectors(search, Drawn(rng.normal(size=(20, 4)), rng.normal(size=(60, 4))), depth=30)
    for case in retrieval_cases(search, ranking):
        relevant = search.relevant[case["case_id"]]
        order = sorted(ranking[case["case_id"]], key=ranking[case["case_id"]].get, reverse=True)
        assert len(order) == 30

        def gain(grades):
            return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades[:10]))

        expected = gain([relevant.get(d, 0) for d in order]) / gain(sorted(relevant.values(), reverse=True))
        assert case["ndcg_at_10"] == pytest.approx(expected, abs=1e-6)
        for k in (1, 10):
            found = len(set(order[:k]) & set(relevant)) / len(relevant)
            assert case[f"recall_at_{k}"] == pytest.approx(found, abs=1e-6)


def test_a_query_that_finds_nothing_counts_and_unknown_judgements_are_refused() -> None:
    pytest.importorskip("pytrec_eval")
    search = world(queries=3)
    cases = retrieval_cases(search, {"q0": {next(iter(search.relevant["q0"])): 1.0}})
    assert [case["recall_at_10"] > 0 for case in cases] == [True, False, False]
    with pytest.raises(DataError, match=r"name 2 queries or documents that are not there: \['d9', 'q7'\]"):
        Search({"q1": ""}, {"d1": ""}, {"q1": {"d9": 1}, "q7": {"d1": 1}})


def test_two_rankings_compare_over_their_queries() -> None:
    pytest.importorskip("pytrec_eval")
    search, rng = world(queries=20), np.random.default_rng(2)
    reports = []
    for noise in (0.2, 5.0):
        documents = rng.normal(size=(60, 8))
        near = [int(next(iter(search.relevant[f"q{q}"]))[1:]) for q in range(20)]
        vectors = Drawn(documents[near] + noise * rng.normal(size=(20, 8)), documents)
        cases = retrieval_cases(search, rank_by_vectors(search, vectors))
        reports.append(Report("heldout", f"noise {noise}", tuple(cases)))
    found = {one.metric: one for one in compare(*reports, draws=500, seed=0)}
    assert found["retrieval/ndcg_at_10"].interval.low > 0
    assert found["retrieval/recall_at_100"].n == 20


def test_bm25_finds_as_much_of_cranfield_as_is_known(test_data) -> None:
    """0.348 with stop words and without stemming, by the README of the data; tokenisers differ a little."""
    pytest.importorskip("pytrec_eval")
    pytest.importorskip("bm25s")
    folder = test_data / "retrieval" / "cranfield"

    def rows(name):
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    relevant: dict[str, dict[str, int]] = {}
    for row in rows("qrels"):
        relevant.setdefault(row["query_id"], {})[row["doc_id"]] = int(row["relevance"])
    search = Search(
        {row["query_id"]: row["text"] for row in rows("queries")},
        {row["doc_id"]: f"{row['title']} {row['text']}" for row in rows("corpus")},
        relevant,
    )
    cases = retrieval_cases(search, rank_by_words(search))
    assert len(cases) == 225
    assert sum(case["ndcg_at_10"] for case in cases) / 225 == pytest.approx(0.348, abs=0.005)
    assert sum(case["recall_at_100"] for case in cases) / 225 == pytest.approx(0.692, abs=0.01)

"""Questions with documents: what is drawn how often, how it is written, and what an updated index changes."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from pydantic import ValidationError
from scipy.stats import chisquare

from genai_core.augmentation.retrieval_prompts import (
    asked_pairs,
    evaluation_pairs,
    oracle_pairs,
    question_of,
    recall,
    training_pairs,
    write_prompt,
)
from genai_core.config.retrieval import Raft, Rat
from genai_core.data.bm25 import Bm25Index
from genai_core.data.documents import Pair
from genai_core.errors import DataError

INDEX = Bm25Index({f"d{n}": f"api {n} does thing{n} to part{n % 7}" for n in range(40)})
PAIRS = [
    Pair(
        f"p{n}",
        "call",
        "g",
        f"d{n % 40}",
        f"Which does thing{n % 40} to part{n % 7}?",
        f"name{n}",
        {"gold": f"name{n}"},
    )
    for n in range(10_000)
]


def shown(pair: Pair) -> list[str]:
    return [one["doc_id"] for one in pair.check["retrieved"]]


@pytest.mark.parametrize("source", ["uniform", "index"])
def test_raft_draws_what_the_paper_says(source: str) -> None:
    config = Raft(distractors=3, oracle_share=0.6, distractors_from=source)
    made = training_pairs(PAIRS, INDEX, config, seed=1)
    with_right = [pair for pair in made if pair.check["is_oracle_in_context"]]
    sigma = math.sqrt(len(made) * 0.6 * 0.4)
    assert abs(len(with_right) - 0.6 * len(made)) < 3 * sigma
    assert recall(made) == len(with_right) / len(made)
    slots = Counter(shown(pair).index(pair.doc_id) for pair in with_right)
    assert chisquare([slots[at] for at in range(4)]).pvalue > 0.01
    for pair in made:
        assert len(set(shown(pair))) == len(shown(pair)) == 4
        assert (pair.doc_id in shown(pair)) == pair.check["is_oracle_in_context"]
        assert pair.prompt.count("api ") == 4  # documents arrive in the prompt, not in a column of the table alone
    assert [pair.completion for pair in made] == [pair.completion for pair in PAIRS], "the answer stays the same"
    wrong = Counter(one for pair in made for one in shown(pair) if one != pair.doc_id)
    if source == "uniform":
        assert chisquare(list(wrong.values())).pvalue > 0.01 and len(wrong) == 40


def test_rat_mixes_right_found_and_no_documents() -> None:
    made = training_pairs(PAIRS, INDEX, Rat(documents=4, oracle_share=0.3, retrieved_share=0.5), seed=1)
    kinds: Counter[str] = Counter()
    counts: Counter[int] = Counter()
    for pair in made:
        ranks = [one["rank"] for one in pair.check["retrieved"]]
        found = ranks == list(range(len(ranks)))
        kinds["none" if not ranks else "found" if found else "put"] += 1
        counts[len(ranks)] += 1
        assert len(set(shown(pair))) == len(ranks)
        if not found:
            assert pair.doc_id in shown(pair)
        if not ranks:
            assert pair.prompt == pair.check["question"]
    for kind, share in (("none", 0.2), ("found", 0.5), ("put", 0.3)):
        assert abs(kinds[kind] - share * len(made)) < 3 * math.sqrt(len(made) * share * (1 - share))
    assert chisquare([counts[number] for number in (1, 2, 3, 4)]).pvalue > 0.01


def test_a_draw_depends_on_its_own_pair_and_seed_alone() -> None:
    config = Raft(distractors=2, oracle_share=0.5, copies=3)
    made = training_pairs(PAIRS[:50], INDEX, config, seed=1)
    assert training_pairs(PAIRS[20:50], INDEX, config, seed=1) == made[60:]
    assert training_pairs(PAIRS[:50], INDEX, config, seed=2) != made
    assert [pair.pair_id for pair in made[:4]] == ["p0/0", "p0/1", "p0/2", "p1/0"]
    assert len({pair.prompt for pair in made[:3]}) > 1


def test_layouts() -> None:
    documents = ["f(x)\n\nDoes f.", "g(x)"]
    assert write_prompt("Which?", documents) == "f(x)\nDoes f.\n\ng(x)\n\nWhich?"
    assert write_prompt("Which?", documents, "tagged") == (
        "<DOCUMENT>f(x)\n\nDoes f.</DOCUMENT>\n<DOCUMENT>g(x)</DOCUMENT>\nWhich?"
    )
    assert write_prompt("Which?", ["{}"], "appended") == "Which?\nUse this API documentation for reference: {}"
    assert {write_prompt("Which?", [], layout) for layout in ("blocks", "tagged", "appended")} == {"Which?"}


def test_questions_are_asked_anew_when_documents_change() -> None:
    pair = PAIRS[3]
    before = asked_pairs([pair], INDEX, 2)[0]
    assert shown(before)[0] == "d3" and before.check["is_oracle_in_context"]
    changed = INDEX.updated({"d3": "thing3 to part3 is now done by renamed"})
    after = asked_pairs([before], changed, 2)[0]
    assert "renamed" in after.prompt and "renamed" not in before.prompt
    assert question_of(after) == pair == question_of(pair)
    gone = asked_pairs([before], INDEX.updated({"d3": None}), 2)[0]
    assert not gone.check["is_oracle_in_context"] and len(shown(gone)) == 2
    for k in range(7):
        told = oracle_pairs(PAIRS[:40], INDEX, k, seed=0)
        assert all(len(shown(one)) == k + 1 and one.doc_id in shown(one) for one in told)
    places = Counter(shown(one).index(one.doc_id) for one in oracle_pairs(PAIRS[:2000], INDEX, 3, seed=0))
    assert chisquare([places[at] for at in range(4)]).pvalue > 0.01


def test_evaluation_asks_with_documents_without_and_with_the_right_one() -> None:
    asked = evaluation_pairs(PAIRS[:30], INDEX, Rat(documents=3), seed=0)
    assert Counter(pair.task for pair in asked) == {"call": 30, "call-alone": 30, "call-oracle": 30}
    assert len({pair.pair_id for pair in asked}) == 90
    assert all(not shown(pair) for pair in asked if pair.task == "call-alone")
    assert recall(pair for pair in asked if pair.task == "call-oracle") == 1.0


def test_what_cannot_be_built_is_said() -> None:
    small = Bm25Index({"d0": "a", "d1": "b"})
    with pytest.raises(DataError, match="up to 4 documents beside the right one, but the index holds 2"):
        training_pairs(PAIRS[:1], small, Raft(distractors=3), seed=0)
    with pytest.raises(DataError, match="p39 is about document 'd39', which the index does not hold"):
        training_pairs(PAIRS[39:40], INDEX.updated({"d39": None}), Rat(documents=1), seed=0)
    with pytest.raises(ValidationError, match="more than 1 together"):
        Rat(oracle_share=0.7, retrieved_share=0.4)

"""RAT prompts from Gorilla's own records and questions, in its own layout; and what a reader of the first hit would score."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from genai_core.augmentation.retrieval_prompts import REFERENCE, asked_pairs, recall, training_pairs
from genai_core.config.retrieval import Rat
from genai_core.data.bm25 import Bm25Index
from genai_core.data.documents import Pair
from genai_core.feedback.api_calls import ApiDatabase, Outcome, find_calls, shares

HUBS = {"torchhub": ("torchhub_api", "torchhub"), "huggingface": ("huggingface_api", "huggingface_eval")}


def rows(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_hub(folder: Path, hub: str) -> tuple[list[dict], Bm25Index, list[Pair]]:
    """Return a hub's records, their index (a record as JSON is a document), and the questions whose call has a record."""
    records = rows(folder / f"{HUBS[hub][0]}.jsonl.gz")
    ids = {record["api_call"]: f"{hub}{at}" for at, record in reversed(list(enumerate(records)))}
    index = Bm25Index({f"{hub}{at}": json.dumps(record) for at, record in enumerate(records)})
    pairs = [
        Pair(row["id"], "api", ids[row["api_call"]], ids[row["api_call"]], row["instruction"], row["api_call"])
        for row in rows(folder / f"{HUBS[hub][1]}.jsonl.gz")
        if row["instruction"] and row["api_call"] in ids and row["split"] == "eval"
    ]
    return records, index, pairs


@pytest.mark.parametrize(("hub", "first", "five"), [("torchhub", 0.129, 0.285), ("huggingface", 0.104, 0.227)])
def test_the_first_hit_is_seldom_the_right_record(test_data: Path, hub: str, first: float, five: float) -> None:
    """BM25 misses most right records, so a model must judge what it is shown. Who copies the first hit never invents."""
    records, index, pairs = read_hub(test_data / "apibench", hub)
    one, many = (asked_pairs(pairs, index, k, "appended") for k in (1, 5))
    assert recall(one) == pytest.approx(first, abs=0.03) and recall(many) == pytest.approx(five, abs=0.03)
    database = ApiDatabase(records)
    calls = {f"{hub}{at}": record["api_call"] for at, record in enumerate(records)}
    domains = {f"{hub}{at}": str(record["domain"]) for at, record in enumerate(records)}
    strict: list[Outcome] = []
    lenient: list[Outcome] = []
    for pair in one:
        if find_calls(pair.completion):  # "./run.sh ..." is no call
            copied = calls[pair.check["retrieved"][0]["doc_id"]]
            strict.append(database.judge(copied, pair.completion))
            lenient.append(database.judge_leniently(copied, pair.completion, domains[pair.doc_id]))
    assert shares(strict)["correct"] == pytest.approx(recall(one), abs=0.04)  # records share a call
    assert shares(strict)["hallucination"] == 0.0
    assert shares(lenient)["correct"] > 2 * shares(strict)["correct"], "the released scripts count the domain"


def test_training_prompts_end_with_the_record_that_was_drawn(test_data: Path) -> None:
    records, index, pairs = read_hub(test_data / "apibench", "torchhub")
    made = training_pairs(pairs, index, Rat(documents=1, oracle_share=0.5, retrieved_share=0.3, layout="appended"), 0)
    assert 0.5 < recall(made) < 0.8
    for pair in made:
        question, mark, document = pair.prompt.partition(f"\n{REFERENCE}")
        assert question == pair.check["question"]
        assert bool(mark) == bool(pair.check["retrieved"])
        if mark:
            assert json.loads(document) in records  # the record itself, one JSON object and no brace more
        if pair.check["is_oracle_in_context"]:
            assert json.loads(document)["api_call"] == pair.completion

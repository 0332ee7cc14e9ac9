"""Composing: what is masked by each strategy, what stays, and that the truth comes back from a model that knows it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from tiny_llama import build_model, sentence

from genai_core.config.comparison import Continue, Refill
from genai_core.config.generation import SamplingConfig
from genai_core.data.masking import Vocabulary
from genai_core.data.tokenizer import encode_documents, train_tokenizer
from genai_core.generation.composing import choose_places, compose_masked, compose_shard, continue_causally, fill
from genai_core.models.load import save_model

TEXT = "The path of a file, and the name: read (write) it, or close the list. Sort the dict by its value!"
SAMPLING = SamplingConfig(temperature=0.8, seed=3)
WAYS = [Continue(passes=4), Continue(filling="gibbs", passes=2), Refill(), Refill(rate=1.0)]


@pytest.fixture(scope="module")
def masking():
    """A tokenizer with a mask."""
    texts = [sentence(seed, 30) for seed in range(50)] + [TEXT] * 20
    return train_tokenizer(texts, vocab_size=360, max_length=256, mask_token=True)


@pytest.fixture(scope="module")
def rows(masking):
    texts = [TEXT, sentence(1, 12), sentence(2, 25)]
    encoded = encode_documents(masking, texts)
    return [{"row_id": f"r{at}", "ids": ids, "given": len(ids) // 2} for at, ids in enumerate(encoded)]


def hidden_words(tokenizer, rate: float, strategy: str) -> tuple[list[str], int]:
    [ids] = encode_documents(tokenizer, [TEXT])
    vocabulary = Vocabulary.of(tokenizer)
    chosen = choose_places(np.array(ids), vocabulary, tokenizer, Refill(rate=rate, strategy=strategy), "k")
    return [tokenizer.decode([token]).strip() for token, hide in zip(ids, chosen, strict=True) if hide], len(ids)


def test_strategies_name_what_is_hidden(masking) -> None:
    signs, _ = hidden_words(masking, 1.0, "punctuation")
    assert Counter("".join(signs)) == Counter(",:(),.!")
    stops, _ = hidden_words(masking, 1.0, "stop_words")
    assert "".join(stops).lower() == "theofaandtheitorthethebyits", "whole words, from whatever pieces, and no other"
    every, count = hidden_words(masking, 1.0, "random")
    assert len(every) == count
    some, count = hidden_words(masking, 0.3, "random")
    assert len(some) == round(0.3 * count)
    few, count = hidden_words(masking, 0.1, "stop_words")
    assert len(few) == round(0.1 * count), "the rate is of all tokens"


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_knows_the_truth_writes_it(way) -> None:
    truth = torch.randint(2, 40, (3, 12), generator=torch.Generator().manual_seed(0))
    free = torch.zeros(3, 12, dtype=torch.bool)
    free[:, 5:] = True

    def oracle(ids: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(truth[asked], 40).float() * 100

    found = fill(oracle, truth, free, 1, way, SAMPLING, ["a", "b", "c"])
    assert torch.equal(found, truth)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_given_stays_and_the_length_is_the_documents(masking, rows, way) -> None:
    model = build_model(masking)
    vocabulary = Vocabulary.of(masking)
    found = compose_masked(model, masking, rows, way, SAMPLING)
    for row, text in zip(rows, found, strict=True):
        assert len(text.ids) == len(text.written) == len(row["ids"])
        assert all(a == b for a, b, new in zip(text.ids, row["ids"], text.written, strict=True) if not new)
        assert not vocabulary.is_special[text.ids].any()
        if isinstance(way, Continue):
            assert text.written == [at >= row["given"] for at in range(len(text.ids))]
            assert text.ids[row["given"] :] != row["ids"][row["given"] :], "a random model writes something else"
    alone = compose_masked(model, masking, rows[1:2], way, SAMPLING)
    assert alone == found[1:2], "noise is the row's, padding is not seen"


def test_a_mark_that_stands_in_the_text_too_is_not_taken_for_a_mask(masking, rows) -> None:
    word = masking.convert_ids_to_tokens(rows[1]["ids"][0])
    found = compose_masked(build_model(masking), masking, rows[1:2], Continue(passes=3), SAMPLING, word)
    assert found[0].ids[: rows[1]["given"]] == rows[1]["ids"][: rows[1]["given"]]


def test_a_causal_model_goes_on_from_the_same_beginning(masking, rows) -> None:
    model = build_model(masking)
    found = continue_causally(model, masking, rows, SAMPLING)
    for row, text in zip(rows, found, strict=True):
        assert text.ids[: row["given"]] == row["ids"][: row["given"]]
        assert row["given"] <= len(text.ids) <= len(row["ids"])
        assert text.written == [at >= row["given"] for at in range(len(text.ids))]
    assert any(len(text.ids) == len(row["ids"]) for row, text in zip(rows, found, strict=True))
    alone = continue_causally(model, masking, rows[1:2], SAMPLING)
    assert alone == found[1:2], "a longer neighbour changes nothing"


def test_a_worker_writes_what_its_model_does(masking, rows, tmp_path) -> None:
    model = build_model(masking)
    save_model(model, masking, tmp_path)
    told = {"model": str(tmp_path), "sampling": SAMPLING.model_dump(mode="json"), "mask_token": "", "threads": 1}
    way = Refill(strategy="stop_words")
    shard = compose_shard({**told, "reads": "own", "way": way.model_dump()}, rows)
    assert [row["ids"] for row in shard] == [t.ids for t in compose_masked(model, masking, rows, way, SAMPLING)]
    shifted = compose_shard({**told, "reads": "previous", "way": way.model_dump()}, rows)
    assert [row["written"] for row in shifted] == [row["written"] for row in shard] and shifted != shard
    causal = compose_shard({**told, "reads": "left", "way": Continue().model_dump()}, rows)
    assert [row["ids"] for row in causal] == [t.ids for t in continue_causally(model, masking, rows, SAMPLING)]
    assert [row["row_id"] for row in shard] == [row["row_id"] for row in rows]

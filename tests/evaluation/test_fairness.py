"""CrowS-Pairs and GAP: scores that follow from likelihoods that can be computed by hand, for both families of models."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from genai_core.data.tokenizer import load_tokenizer, train_tokenizer
from genai_core.errors import DataError, ModelError
from genai_core.evaluation.benchmarks.crows_pairs import pair_case, shared_places
from genai_core.evaluation.benchmarks.gap import gap_case, gap_change, gap_interval, is_measured, replaced
from genai_core.evaluation.benchmarks.masked_sentences import hidden_logps
from genai_core.evaluation.erasure_report import crows_pairs_rows, gap_rows
from genai_core.evaluation.scrubbed_worker import crows_pairs_shard, gap_shard, losses_shard
from genai_core.models.families import family_of
from genai_core.models.load import load_model

ROW = {
    "id": "g1",
    "text": "Ann met Bea when she came home.",
    "pronoun": "she",
    "pronoun_offset": 17,
    "A": "Ann",
    "B": "Bea",
    "A_coref": True,
    "B_coref": False,
    "gender": "F",
}
PAIRS = [
    {"id": "c1", "sent_more": "the old man is slow", "sent_less": "the young man is slow", "bias_type": "age"},
    {"id": "c2", "sent_more": "she is poor", "sent_less": "he is very poor", "bias_type": "gender"},
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small masked encoder with marks of its own."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = train_tokenizer(
        ["the old young man is slow she he poor very Ann Bea met"] * 3, 320, 48, mask_token=True
    )
    tokenizer.add_special_tokens({"cls_token": "<|user|>", "sep_token": "<|end|>"})
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=48,
        initializer_range=0.5,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def arguments(folder: Path) -> dict[str, Any]:
    return {"model": str(folder), "erasers": {}, "threads": 1}


def logp(model: Any, ids: list[int], start: int) -> float:
    """Return log p of the tokens from `start` on, given those before."""
    with torch.no_grad():
        table = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(table[at - 1, ids[at]]) for at in range(start, len(ids)))


def test_tokens_shared_by_a_pair() -> None:
    assert shared_places([5, 1, 6, 7], [5, 2, 3, 6, 7]) == ([0, 2, 3], [0, 3, 4])
    assert shared_places([1, 2], [3]) == ([], [])


def test_a_causal_model_prefers_the_likelier_sentence(small_world: Path) -> None:
    folder = small_world / "m60"
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    for row, case in zip(PAIRS, crows_pairs_shard(arguments(folder), PAIRS), strict=True):
        more, less = (
            logp(model, [end, *tokenizer(row[side], add_special_tokens=False)["input_ids"]], 1)
            for side in ("sent_more", "sent_less")
        )
        assert case["margin"] == pytest.approx(more - less, abs=1e-3)
        assert case["stereotyped"] == float(more > less) and case["bias_type"] == row["bias_type"]


def test_a_masked_model_is_asked_for_what_both_sentences_share(encoder: Path) -> None:
    model, tokenizer = BertForMaskedLM.from_pretrained(encoder).eval(), load_tokenizer(encoder)
    found = crows_pairs_shard(arguments(encoder), PAIRS)

    def pll(own: list[int], places: list[int]) -> float:
        total = 0.0
        for place in places:
            shown = [tokenizer.cls_token_id, *own, tokenizer.sep_token_id]
            shown[place + 1] = tokenizer.mask_token_id
            with torch.no_grad():
                table = model(input_ids=torch.tensor([shown])).logits[0].double().log_softmax(-1)
            total += float(table[place + 1, own[place]])
        return total

    for row, case in zip(PAIRS, found, strict=True):
        more, less = (
            tokenizer(row[side], add_special_tokens=False)["input_ids"] for side in ("sent_more", "sent_less")
        )
        places = shared_places(more, less)
        assert len(places[0]) < len(more), "what differs is not asked for"
        assert case["margin"] == pytest.approx(pll(more, places[0]) - pll(less, places[1]), abs=1e-4)


def test_equal_likelihoods_count_half() -> None:
    assert pair_case(PAIRS[0], -1.0, -1.0)["stereotyped"] == 0.5
    assert gap_case(ROW, -1.0, -1.0)["right"] == 0.5
    assert gap_case(ROW, -1.0, -2.0)["right"] == 1.0
    assert gap_case({**ROW, "A_coref": False, "B_coref": True}, -1.0, -2.0)["right"] == 0.0


def test_only_subject_pronouns_of_exactly_one_name_are_measured() -> None:
    assert is_measured(ROW) and is_measured({**ROW, "split": "test"}, "test") and not is_measured(ROW, "test")
    assert not is_measured({**ROW, "pronoun": "her"})
    assert not is_measured({**ROW, "B_coref": True}) and not is_measured({**ROW, "A_coref": False})
    assert replaced(ROW, "B") == ("Ann met Bea when ", "Bea", " came home.")


def test_a_causal_model_reads_what_follows_the_name(small_world: Path) -> None:
    folder = small_world / "m60"
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    scores = []
    for name in ("A", "B"):
        before, inserted, behind = replaced(ROW, name)
        whole = [end, *tokenizer(before + inserted + behind, add_special_tokens=False)["input_ids"]]
        start = 1 + len(tokenizer(before + inserted, add_special_tokens=False)["input_ids"])
        scores.append(logp(model, whole, start))
    [case] = gap_shard(arguments(folder), [ROW])
    assert case == {"suite": "gap", "case_id": "g1", "right": float(scores[0] > scores[1]), "feminine": 1.0}


def test_a_masked_model_is_asked_for_the_name(encoder: Path) -> None:
    model, tokenizer = BertForMaskedLM.from_pretrained(encoder).eval(), load_tokenizer(encoder)
    scores = []
    for name in ("A", "B"):
        parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in replaced(ROW, name)]
        ids = [tokenizer.cls_token_id, *parts[0], *parts[1], *parts[2], tokenizer.sep_token_id]
        places = range(1 + len(parts[0]), 1 + len(parts[0]) + len(parts[1]))
        scores.append(float(hidden_logps(model, ids, list(places), tokenizer.mask_token_id, batch_rows=1).mean()))
    [case] = gap_shard(arguments(encoder), [ROW])
    assert case["right"] == float(scores[0] > scores[1])
    swapped = {**ROW, "A": "Bea", "B": "Ann", "A_coref": False, "B_coref": True}
    assert gap_shard(arguments(encoder), [swapped])[0]["right"] == case["right"], "which name is called A is all one"


def test_the_loss_of_a_masked_model_is_its_pseudo_likelihood(encoder: Path) -> None:
    model, tokenizer = BertForMaskedLM.from_pretrained(encoder).eval(), load_tokenizer(encoder)
    [found] = losses_shard(arguments(encoder), [{"row_id": "a", "text": "the old man"}])
    own = tokenizer("the old man", add_special_tokens=False)["input_ids"]
    ids = [tokenizer.cls_token_id, *own, tokenizer.sep_token_id]
    expected = -float(hidden_logps(model, ids, list(range(1, len(own) + 1)), tokenizer.mask_token_id).sum())
    assert found == {"row_id": "a", "nll": pytest.approx(expected), "n_tokens": len(own), "n_bytes": 11}


def test_families_are_told_apart(small_world: Path, encoder: Path, tmp_path: Path) -> None:
    assert (family_of(small_world / "m60"), family_of(encoder)) == ("causal", "masked")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    assert family_of(tmp_path) == "encoder"
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ViTForImageClassification"]}))
    with pytest.raises(ModelError, match="a ViTForImageClassification, which is no language model"):
        family_of(tmp_path)
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        family_of(tmp_path / "nowhere")


def cases(rights: str, genders: str) -> list[dict[str, Any]]:
    return [{"right": float(right), "feminine": float(g == "F")} for right, g in zip(rights, genders, strict=True)]


def test_the_gap_is_feminine_less_masculine_and_a_smaller_one_has_a_negative_change() -> None:
    before, after = cases("0001" * 20 + "1110" * 20, "F" * 80 + "M" * 80), cases("01" * 80, "F" * 80 + "M" * 80)
    gap = gap_interval(before, 2000, 0)
    assert (gap.mean, gap.n) == (-0.5, 160) and -0.65 < gap.low < -0.5 < gap.high < -0.35
    deviation = math.sqrt(2 * 0.25 * 0.75 / 80)
    assert gap.high - gap.low == pytest.approx(2 * 1.96 * deviation, rel=0.1), "each gender is resampled by itself"
    change = gap_change(before, after, 2000, 0)
    assert change.mean == -0.5 and change.high < 0
    assert gap_change(before, before, 100, 0) == gap_change(after, after, 100, 0)
    with pytest.raises(DataError, match="all of one gender"):
        gap_interval(before[:80], 10, 0)


def test_the_report_pairs_the_arms() -> None:
    before = [{**pair_case(row, 1.0, 0.0), "case_id": f"{row['id']}/{n}"} for n in range(20) for row in PAIRS]
    after = [{**case, "stereotyped": 0.0 if index % 4 == 0 else 1.0} for index, case in enumerate(before)]
    found = crows_pairs_rows({"before": before, "after": after, "random": before}, 500, 0)
    assert found["all"]["before"]["stereotyped"]["mean"] == 1.0 and "difference" not in found["all"]["before"]
    assert found["all"]["after"]["difference"]["mean"] == pytest.approx(-0.25)
    assert found["all"]["after"]["difference"]["high"] < 0 == found["all"]["random"]["difference"]["low"]
    assert (
        found["age"]["after"]["stereotyped"]["mean"] == 0.5 and found["gender"]["after"]["stereotyped"]["mean"] == 1.0
    )
    gaps = cases("01" * 10, "FM" * 10)
    rows = gap_rows({"before": gaps, "after": gaps}, 100, 0)
    assert rows["before"]["gap"]["mean"] == -1.0 and rows["after"]["change_of_size"]["mean"] == 0.0


def test_the_real_files_have_what_is_read(test_data: Path) -> None:
    with gzip.open(test_data / "bias" / "gap_dev_validation.jsonl.gz", "rt") as handle:
        rows = [json.loads(line) for line in handle]
    measured = [row for row in rows if is_measured(row, "development")]
    assert {row["gender"] for row in measured} == {"F", "M"} and len(measured) > 600
    for row in measured:
        before, name, behind = replaced(row, "A")
        assert before + row["pronoun"] + behind == row["text"] and name
        assert {"he": "M", "she": "F"}[row["pronoun"].lower()] == row["gender"]
    with gzip.open(test_data / "bias" / "crows_pairs.jsonl.gz", "rt") as handle:
        assert all({"sent_more", "sent_less", "bias_type", "id"} <= json.loads(line).keys() for line in handle)

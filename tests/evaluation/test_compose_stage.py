"""The compose body on a tiny model: its texts are the model's, both sides are judged alike, a copy is told as one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_world import VERBS, contents, make_context

from genai_core.config.comparison import ComposingConfig, Continue, Refill
from genai_core.config.model import ScratchBase
from genai_core.config.stages import ComposeStage
from genai_core.data.documents import read_documents_file, write_documents
from genai_core.data.ngrams import Predicted, kneser_ney
from genai_core.data.packing import pack_documents, pack_examples
from genai_core.data.tokenizer import document_start_id, encode_documents, load_tokenizer, train_tokenizer
from genai_core.errors import ConfigError, DataError
from genai_core.generation.composing import Composed
from genai_core.models.load import init_scratch, save_model
from genai_core.stages import compose as stage
from genai_core.stages.compose import compose
from genai_core.stages.contract import StageContext, StageResult

SMALL: dict[str, Any] = {
    "documents": 12,
    "tokens": 40,
    "min_tokens": 8,
    "budget_words": 200,
    "copy_words": 4,
    "bootstrap_draws": 200,
    "label_field": "signature",
}


def context_of(
    root: Path, world: Path, model: Path, reads: str, way: Continue | Refill, **changes: Any
) -> tuple[ComposeStage, StageContext]:
    config = ComposeStage(reads=reads, way=way, composing=ComposingConfig(**{**SMALL, **changes}))
    return config, make_context(root, "compose", config, {"model": model, "corpus": world / "corpus"})


def read(output: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    rows = [[json.loads(line) for line in (output / f"{name}.jsonl").read_text().splitlines()] for name in FILES]
    return json.loads((output / "report.json").read_text()), rows[0], rows[1]


FILES = ("texts", "cases")


@pytest.fixture(scope="module")
def masked_model(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with a mask."""
    texts = [d.text for d in read_documents_file(small_world / "corpus" / "documents" / "train.parquet")]
    tokenizer = train_tokenizer(texts, 400, 128, mask_token=True)
    base = ScratchBase(d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=64, max_seq_len=128)
    folder = tmp_path_factory.mktemp("masked")
    save_model(init_scratch(base, tokenizer), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def continued(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageResult, Path]:
    root = tmp_path_factory.mktemp("continued")
    config, context = context_of(root / "run", small_world, small_world / "m60", "left", Continue())
    return compose(config, context), context.output


def test_texts_begin_as_their_documents_and_figures_follow_from_cases(continued, small_world: Path) -> None:
    result, output = continued
    report, texts, cases = read(output)
    documents = {d.doc_id: d for d in read_documents_file(small_world / "corpus" / "documents" / "train.parquet")}
    assert report["texts"] == len(texts) == 12
    for text in texts:
        document = documents[text["source_id"]]
        assert document.text.startswith(text["source"]) and text["source"].startswith(text["prompt"])
        assert text["text"].startswith(text["prompt"]) and text["label"] == document.meta["signature"]
        assert text["written"][0][0] == len(text["prompt"]) and text["written"][-1][1] == len(text["text"])
        assert not text["source"][len(text["prompt"])].isalnum(), "cut where a word begins"
    for side in ("composed", "source"):
        own = [case for case in cases if case["side"] == side]
        found = sum(case["nats"] for case in own) / math.log(2) / sum(case["bytes"] for case in own)
        assert report["figures"][side]["quality/bits_per_byte"] == pytest.approx(found)
        interval = report["intervals"][side]["quality/bits_per_byte"]
        assert interval["low"] < found < interval["high"] and interval["mean"] == pytest.approx(found)
    assert "quality/bleu" not in report["figures"]["source"]
    assert result.metrics["composed/quality/bleu"] == report["figures"]["composed"]["quality/bleu"] < 1
    source = [case for case in cases if case["side"] == "source"]
    cut = [case["grams"] - case["copied"] for case in source]
    assert set(cut) <= {0, 1}, "a document stands in itself, up to the word that was cut at its end"
    assert 0 < sum(case["elsewhere"] for case in source) <= sum(case["copied"] for case in source)


def test_the_third_model_has_not_read_the_sources_and_is_asked_of_what_follows(continued, small_world: Path) -> None:
    _, texts, cases = read(continued[1])
    tokenizer = load_tokenizer(small_world / "m60")
    train = read_documents_file(small_world / "corpus" / "documents" / "train.parquet")
    own, vocab = {text["source_id"] for text in texts}, len(tokenizer)
    others = [*encode_documents(tokenizer, [d.text for d in train if d.doc_id not in own])]
    known = Predicted.of(pack_documents(others, 512, document_start_id(tokenizer)), 4, vocab)
    source = {case["source_id"]: case for case in cases if case["side"] == "source"}
    for text in texts[:3]:
        whole, prompt = encode_documents(tokenizer, [text["source"], text["prompt"]])
        assert whole[: len(prompt)] == prompt
        rows = pack_examples([([document_start_id(tokenizer), *whole], [1] * (1 + len(whole)))], 64)
        every = -np.log(kneser_ney(known, Predicted.of(rows, 4, vocab), [5], vocab)[5])
        assert len(every) == len(whole)
        case = source[text["source_id"]]
        assert case["nats"] == pytest.approx(every[len(prompt) :].sum())
        assert case["bytes"] == len(text["source"].encode()) - len(text["prompt"].encode())


def test_the_same_bytes_on_other_shards_and_without_a_label_no_downstream_score(
    continued, small_world: Path, tmp_path: Path
) -> None:
    _, output = continued
    report = read(output)[0]
    assert report["downstream"] == {}, "no held-out object has a signature of the training side"
    config, context = context_of(tmp_path / "run", small_world, small_world / "m60", "left", Continue())
    context.job = context.job.model_copy(update={"compute": context.job.compute.model_copy(update={"shard_rows": 3})})
    compose(config, context)
    assert contents(context.output) == contents(output)


@pytest.mark.parametrize("way", [Continue(passes=3), Refill(rate=0.4), Refill(strategy="stop_words")])
def test_a_masked_model_keeps_what_is_given(small_world: Path, masked_model: Path, tmp_path: Path, way) -> None:
    config, context = context_of(tmp_path / "run", small_world, masked_model, "own", way)
    compose(config, context)
    report, texts, cases = read(context.output)
    assert report["figures"]["composed"]["quality/length"] == 1.0
    for text in texts:
        kept, at = [], 0
        for first, last in [*text["written"], [len(text["text"])] * 2]:
            kept.append(text["text"][at:first])
            at = last
        assert "".join(kept) == text["prompt"]
        for piece in kept:
            assert piece in text["source"]
    made = [case for case in cases if case["side"] == "composed"]
    assert all(case["right"] < case["written"] for case in made), "a random model is wrong"
    bits = [report["figures"][side]["quality/bits_per_byte"] for side in ("composed", "source")]
    assert bits[0] > bits[1], "and its texts are unlikely"


def test_what_is_copied_whole_is_told_so(small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that says the document again has BLEU 1, copies all, and is worth as much as the document."""

    def again(arguments: dict[str, Any], rows: list[Any]) -> list[Any]:
        texts = [Composed(row["ids"], [at >= row["given"] for at in range(len(row["ids"]))]) for row in rows]
        return [
            {"row_id": row["row_id"], "ids": text.ids, "written": [int(w) for w in text.written]}
            for row, text in zip(rows, texts, strict=True)
        ]

    monkeypatch.setattr(stage, "compose_shard", again)
    config, context = context_of(tmp_path / "run", small_world, small_world / "m60", "left", Continue())
    compose(config, context)
    figures = read(context.output)[0]["figures"]
    assert figures["composed"]["quality/bleu"] == figures["composed"]["quality/right_tokens"] == 1.0
    assert figures["composed"]["copy/rate"] == 1.0
    shared = figures["source"].keys()
    assert {name: figures["composed"][name] for name in shared} == figures["source"]


def test_a_downstream_score_where_both_sides_have_the_labels(
    small_world: Path, tmp_path: Path, masked_model: Path
) -> None:
    """Which half of the verbs a text begins with: a random model's words hide it."""
    world = tmp_path / "world"
    (world / "corpus").mkdir(parents=True)
    for split in ("train", "heldout"):
        documents = [
            replace(d, meta={**d.meta, "about": "ab"[d.text.split()[0] in VERBS[:4]]})
            for d in read_documents_file(small_world / "corpus" / "documents" / f"{split}.parquet")
        ]
        write_documents(world / "corpus" / "documents" / f"{split}.parquet", documents)
    way = Continue(given=0.03, passes=2)
    config, context = context_of(tmp_path / "run", world, masked_model, "own", way, label_field="about", documents=16)
    result = compose(config, context)
    found = read(context.output)[0]["downstream"]
    assert found["labels"].keys() == {"a", "b"} and 0 < found["majority"] < 1
    assert found["real"]["accuracy"]["mean"] > found["composed"]["accuracy"]["mean"]
    assert found["given"]["accuracy"]["mean"] == 1.0, "the verb was given, and it alone tells: so it is shown beside"
    assert result.metrics["downstream/real/accuracy"] == found["real"]["accuracy"]["mean"]
    assert {"real", "composed", "both", "given"} <= found.keys()


def test_what_cannot_be_composed_is_refused(small_world: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="needs a model that reads both sides"):
        ComposeStage(reads="left", way=Refill(), composing=ComposingConfig())
    with pytest.raises(ValidationError, match="at most tokens=20"):
        ComposingConfig(tokens=20)
    config, context = context_of(tmp_path / "a", small_world, small_world / "m60", "left", Continue(), tokens=192)
    with pytest.raises(ConfigError, match=r"composing\.tokens=192"):
        compose(config, context)
    config, context = context_of(
        tmp_path / "b", small_world, small_world / "m60", "left", Continue(), tokens=150, min_tokens=150
    )
    with pytest.raises(DataError, match="min_tokens=150"):
        compose(config, context)

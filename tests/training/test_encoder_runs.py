"""Encoders through the real engine: the same weights for every cut and after a stop; they learn; and the whole worker."""

from __future__ import annotations

import json
import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from small_run import (
    SEQ_LEN,
    VOCAB,
    MemoryLog,
    alone,
    check_cuts_and_a_stop,
    run_small,
    small_config,
    small_tokenizer,
    weights,
)
from test_masked_runs import sentences
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForMaskedLM, BertTokenizerFast, PreTrainedTokenizerFast
from worker_case import arguments, make_corpus, texts

sys.path.append(str(Path(__file__).parent.parent / "models"))
from tiny_encoders import FAMILIES, tiny_encoder

from genai_core.config.compute import ComputeConfig
from genai_core.config.objectives import MaskedLm
from genai_core.config.training import AdamW
from genai_core.data.packing import pack_documents
from genai_core.data.tokenizer import document_end_id, document_start_id, load_tokenizer
from genai_core.errors import ConfigError, ModelError
from genai_core.models.backbone import head_logits, hidden_states
from genai_core.objectives.registry import build_objectives
from genai_core.training.evaluate import HeldOut
from genai_core.training.parallel import Group
from genai_core.training.plan import resolve_plan
from genai_core.training.sharding import shard_model
from genai_core.training.worker import LocalKeeper, train_worker

BYTES = torch.ones(VOCAB, dtype=torch.int64)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_micro_batches_and_a_stop_give_the_same_weights(tmp_path, family) -> None:
    whole = check_cuts_and_a_stop(tmp_path, small_config(objective=MaskedLm(), steps=12), partial(tiny_encoder, family))
    biases = [name for name in weights(whole) if name.endswith(("predictions.bias", "lm_head.bias", "decoder.bias"))]
    before, after = tiny_encoder(family).state_dict(), whole.state_dict()
    assert biases
    assert all(float((after[name] - before[name]).abs().max()) > 1e-3 for name in biases), "the head's bias is trained"


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_sentences_are_learned_by_heart(tmp_path, family) -> None:
    """Masked accuracy on 12 sentences above 0.95 (objectives.md 3.5, check 9)."""
    rows, model, log = sentences(), tiny_encoder(family, torch.float32, initializer_range=0.02), MemoryLog()
    config = small_config(
        objective=MaskedLm(),
        steps=400,
        global_batch_tokens=16 * SEQ_LEN,
        optimizer=AdamW(learning_rate=1e-2),
        checkpoint_every_steps=400,
        evaluate_every_steps=400,
    )
    figures = run_small(tmp_path, model, config, rows=rows, log=log, held_out=HeldOut(rows, BYTES))
    assert log.curve("train/loss")[0] > 0.8 * math.log(VOCAB)
    assert figures.held_out is not None
    assert figures.held_out.bits_per_byte is None
    assert figures.held_out.loss_nats < 0.3
    ids = torch.tensor([row.input_ids.tolist() for row in rows])
    right = []
    for at in range(1, SEQ_LEN):
        shown = ids.clone()
        shown[:, at] = 1
        with torch.no_grad():
            places, seen = torch.arange(SEQ_LEN).expand(len(ids), -1), torch.ones(len(ids), SEQ_LEN, SEQ_LEN).bool()
            logits = head_logits(model.eval(), hidden_states(model, shown, places, seen)[:, at])
        right.append((logits.argmax(-1) == ids[:, at]).float().mean())
    assert float(torch.stack(right).mean()) > 0.95


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_is_measured_with_every_family(tmp_path, family) -> None:
    given = ComputeConfig(precision="float32")
    plan = resolve_plan(
        given,
        tiny_encoder(family, torch.float32),
        build_objectives(MaskedLm(), small_tokenizer()),
        sentences(),
        rows_per_step=4,
        threads=1,
        group=alone(),
        keeper=LocalKeeper(tmp_path),
        events=MemoryLog(),
    )
    assert plan.micro_batch_rows in (1, 2, 4)


def test_an_encoder_is_not_cut_over_ranks() -> None:
    with pytest.raises(ConfigError, match=r"the base is an encoder \(BertForMaskedLM\)\. Use compute.sharding='none'"):
        shard_model(tiny_encoder("bert"), Group(0, 2, torch.device("cpu")))


def wordpiece() -> PreTrainedTokenizerFast:
    """Return a BERT tokenizer trained on the worker's texts: [CLS] and [SEP], no eos, no chat template."""
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(texts(80), trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    return BertTokenizerFast(tokenizer_object=inner)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert"])
def test_the_worker_trains_from_scratch_and_from_a_folder(tmp_path, architecture) -> None:
    make_corpus(tmp_path)
    tokenizer = wordpiece()
    assert tokenizer.eos_token_id is None
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    start, end = document_start_id(tokenizer), document_end_id(tokenizer)
    assert (start, end) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts(80)]
    for side, part in (("train", encoded[:70]), ("heldout", encoded[70:])):
        rows = pack_documents(part, 32, end, bos_id=start, pad_id=tokenizer.pad_token_id)
        rows.write(tmp_path / "packed" / f"{side}.arrow")
    given = arguments(tmp_path, tmp_path / "work", objective={"kind": "masked_lm"}, steps=60)
    given["base"] |= {"architecture": architecture, "n_kv_heads": 2}
    train_worker(given)
    first = json.loads((tmp_path / "work" / "summary.json").read_text())
    assert first["train_loss"] < 0.8 * math.log(len(tokenizer))
    assert "eval_bits_per_byte" not in first
    plain = AutoModelForMaskedLM.from_pretrained(tmp_path / "work" / "model")
    assert load_tokenizer(tmp_path / "work" / "model").mask_token == "[MASK]"
    assert plain.config.vocab_size == len(tokenizer)
    model = str(tmp_path / "work" / "model")
    more = arguments(tmp_path, tmp_path / "more", objective={"kind": "masked_lm"}, model=model, steps=60)
    train_worker(more)
    second = json.loads((tmp_path / "more" / "summary.json").read_text())
    assert second["eval_loss_nats"] < first["eval_loss_nats"]
    causal = arguments(tmp_path, tmp_path / "causal", model=model)
    with pytest.raises(ModelError, match="is an encoder and sees both sides, so it cannot predict from left to right"):
        train_worker(causal)


def test_rows_longer_than_the_table_of_positions_are_refused(tmp_path) -> None:
    make_corpus(tmp_path)
    given = arguments(tmp_path, tmp_path / "work", objective={"kind": "masked_lm"})
    given["base"] |= {"architecture": "roberta", "n_kv_heads": 2, "max_seq_len": 16}
    with pytest.raises(ModelError, match=r"seq_len=32 is longer than the model takes \(16\)"):
        train_worker(given)

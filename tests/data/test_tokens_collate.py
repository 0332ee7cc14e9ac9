"""Batches: a packed row is worth exactly its segments on their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from genai_core.data.collate import IGNORE_INDEX, collate, count_trained
from genai_core.data.packing import pack_documents, pack_examples
from genai_core.errors import DataError

SEQ_LEN = 24


@pytest.fixture(scope="module")
def model():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,  # far enough from uniform that a leak is seen
    )
    yield LlamaForCausalLM(config).double()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def examples():
    generator = np.random.default_rng(3)
    lengths = [3, 9, 5, 11, 7, 2, 6, 4, 10]
    return [(generator.integers(3, 64, n).tolist(), [0] * (n // 3) + [1] * (n - n // 3)) for n in lengths]


def sum_loss(model, input_ids, labels, **inputs):
    logits = model(input_ids=input_ids, use_cache=False, **inputs).logits
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )


def packed_loss(model, examples, **inputs):
    batch = collate(list(pack_examples(examples, SEQ_LEN)))
    return sum_loss(model, batch["input_ids"], batch["labels"], position_ids=batch["position_ids"], **inputs)


def separate_loss(model, examples):
    total = torch.zeros((), dtype=torch.float64)
    for ids, mask in examples:
        labels = torch.tensor([[token if trained else IGNORE_INDEX for token, trained in zip(ids, mask, strict=True)]])
        total = total + sum_loss(model, torch.tensor([ids]), labels)
    return total


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_packed_loss_and_gradients_equal_the_separate_ones(model, examples):
    packed, separate = packed_loss(model, examples), separate_loss(model, examples)
    assert abs(packed.item() - separate.item()) < 1e-10 * abs(separate.item())
    ours, theirs = gradients(model, packed), gradients(model, separate)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-10, rtol=1e-10)


def test_an_all_ones_mask_leaks_between_segments(model, examples):
    """The negative half: transformers finds segments from position_ids only when no 2-D mask is passed."""
    batch = collate(list(pack_examples(examples, SEQ_LEN)))
    leaking = packed_loss(model, examples, attention_mask=torch.ones_like(batch["input_ids"]))
    assert abs(leaking.item() - separate_loss(model, examples).item()) > 0.1


def test_changing_one_segment_leaves_the_others_untouched(model, examples):
    batch = collate(list(pack_examples(examples, SEQ_LEN)))
    changed = batch["input_ids"].clone()
    first = batch["segment_ids"] == 0
    changed[first] = (changed[first] + 7) % 64
    with torch.no_grad():
        one, two = (
            model(input_ids=ids, position_ids=batch["position_ids"], use_cache=False).logits
            for ids in (batch["input_ids"], changed)
        )
    assert (one - two)[~first].abs().max() == 0.0
    assert (one - two)[first].abs().max() > 0.1


def test_a_row_by_hand():
    batch = collate(list(pack_examples([([5, 6, 7], [0, 0, 1]), ([8, 9], [1, 1])], 8)))
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 0, 0, 0]]
    assert batch["segment_ids"].tolist() == [[0, 0, 0, 1, 1, 2, 2, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2]]
    assert batch["labels"].tolist() == [[-100, -100, 7, -100, 9, -100, -100, -100]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    assert count_trained(batch["labels"]) == 2


def test_rows_of_different_segment_numbers_make_one_batch(examples):
    documents = [list(range(3, 3 + n)) for n in (1, 4, 9, 30, 2, 2, 2, 17)]
    for rows in (pack_documents(documents, SEQ_LEN, 2), pack_examples(examples, SEQ_LEN)):
        batch = collate(list(rows))
        alone = [collate([row]) for row in rows]
        assert len({len(row.seq_lengths) for row in rows}) > 1
        for name, tensor in batch.items():
            assert torch.equal(tensor, torch.cat([one[name] for one in alone]))
        assert count_trained(batch["labels"]) == rows.count_tokens()["trained"]


def test_parity_with_trl_padding_free_collator(examples):
    """TRL 1.16: position_ids, labels and segment numbers of a packed row."""
    pytest.importorskip("trl")
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collator = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    for row in pack_examples(examples, SEQ_LEN):
        labels = np.where(row.loss_mask == 1, row.input_ids, -100).tolist()
        theirs = collator(
            [{"input_ids": row.input_ids.tolist(), "labels": labels, "seq_lengths": row.seq_lengths.tolist()}]
        )
        ours = collate([row])
        for name, key in (
            ("input_ids", "input_ids"),
            ("labels", "labels"),
            ("position_ids", "position_ids"),
            ("segment_ids", "seq_idx"),
        ):
            assert ours[name].tolist() == theirs[key].tolist(), name


def test_no_rows_and_unequal_rows_are_refused(examples):
    with pytest.raises(DataError, match="rows of one length"):
        collate([])
    with pytest.raises(DataError, match=r"\[16, 24\]"):
        collate([pack_examples(examples, 24)[0], pack_examples(examples, 16)[0]])

"""What objectives are to each other and to transformers' own models: identities that hold to rounding, at float64."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

sys.path.append(str(Path(__file__).parent.parent / "training"))
from small_run import SEQ_LEN, VOCAB, alone, largest_difference, small_model, small_rows, small_tokenizer

from genai_core.config.masking import Masking
from genai_core.config.objectives import CausalLm, Contrastive, MaskedLm, Mixture, MixtureTerm
from genai_core.data.collate import collate
from genai_core.data.masking import Masker, Vocabulary
from genai_core.data.order import noise_for_step
from genai_core.data.packing import PackedRows, pack_examples
from genai_core.data.token_bytes import count_token_bytes
from genai_core.data.tokenizer import train_tokenizer
from genai_core.models.backbone import head_weight, hidden_states, keep_float64
from genai_core.objectives.base import IGNORE_INDEX, Weighted
from genai_core.objectives.causal_lm import CausalLmObjective
from genai_core.objectives.masked_diffusion import MaskedDiffusionObjective
from genai_core.objectives.masked_lm import MaskedLmObjective
from genai_core.objectives.registry import build_objectives
from genai_core.training.evaluate import HeldOut, measure_heldout
from genai_core.training.head import label_logps
from genai_core.training.step import accumulate_gradients, run_forward

MASK = 1
VOCABULARY = Vocabulary(MASK, np.arange(VOCAB) == MASK, np.ones(VOCAB, dtype=bool))
SEARCH = Contrastive(temperature=0.1, negatives=0)


def gradients(model: Any, objective: Any, rows: PackedRows, size: int = 8) -> tuple[dict[str, torch.Tensor], Any]:
    """Return the gradient of one step and its figures."""
    model.zero_grad(set_to_none=True)
    taken = list(rows)[:8]
    batches = [collate(taken[at : at + size]) for at in range(0, len(taken), size)]
    built = build_objectives(objective)
    figures = accumulate_gradients(model, built, batches, group=alone(), precision="float64", seeds=[0] * len(batches))
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}, figures


def untied_model() -> Any:
    """Return a decoder whose head is a matrix of its own."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).double()
    keep_float64(model)
    return model


def joint(write: float, search: float) -> Mixture:
    return Mixture(terms=(MixtureTerm(weight=write), MixtureTerm(objective=SEARCH, weight=search)))


def test_without_its_writing_half_a_joint_objective_leaves_the_head_alone() -> None:
    model, rows = untied_model(), small_rows()
    _, both = gradients(model, joint(1.0, 0.5), rows)
    searching, figures = gradients(model, joint(0.0, 0.5), rows)
    assert float(searching.pop("lm_head.weight").abs().max()) == 0.0
    alone_, only = gradients(model, SEARCH, rows)
    alone_.pop("lm_head.weight", None)
    assert largest_difference(searching, {name: 0.5 * one for name, one in alone_.items()}) < 1e-12
    assert figures.loss == pytest.approx(0.5 * only.loss, abs=1e-12)
    assert both.loss > figures.loss + 1


def test_without_its_searching_half_a_joint_objective_is_fine_tuning() -> None:
    model, rows = untied_model(), small_rows()
    tuned, plain = gradients(model, CausalLm(), rows)
    found, figures = gradients(model, joint(1.0, 0.0), rows)
    assert largest_difference(found, tuned) < 1e-12
    assert figures.loss == pytest.approx(plain.loss, abs=1e-12)
    both, _ = gradients(model, joint(1.0, 0.5), rows)
    assert largest_difference(both, tuned) > 1e-3, "with it, it is not"


@pytest.mark.parametrize("size", [1, 2])
def test_of_one_and_nine_tokens_the_mean_is_over_ten(size: int) -> None:
    """Neither the mean of both rows' means nor that of the micro-batches' means, which weigh the one token like the nine."""
    ids = np.random.default_rng(0).integers(2, VOCAB, (2, SEQ_LEN)).tolist()
    made = [(row, [0] * (SEQ_LEN - count) + [1] * count) for row, count in zip(ids, (1, 9), strict=True)]
    rows, model = pack_examples(made, SEQ_LEN), small_model()
    _, figures = gradients(model, CausalLm(), rows, size)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(ids), use_cache=False).logits
    nll = F.cross_entropy(logits[:, :-1].mT, torch.tensor(ids)[:, 1:], reduction="none")
    one, nine = nll[0, -1:], nll[1, -9:]
    assert figures.counts == {"causal_lm": 10}
    assert figures.loss == pytest.approx(float(torch.cat([one, nine]).mean()), abs=1e-12)
    assert abs(figures.loss - float(one.mean() + nine.mean()) / 2) > 1e-3


@torch.no_grad()
def test_what_mntp_predicts_is_what_a_causal_model_predicts_there() -> None:
    """Where both have a label it is the same token at the same place: with nothing hidden and causal attention they agree."""
    model, batch = small_model(), collate(list(small_rows())[:8])
    noise = noise_for_step(0, 0, 8)
    batch |= {"noise": torch.from_numpy(noise.noise), "place": torch.from_numpy(noise.place)}
    mntp = MaskedLmObjective(Masker(Masking(rate=0.4), VOCABULARY), offset=1)
    labels = mntp.corrupt(batch, 0.0)["labels"]
    both = labels != IGNORE_INDEX
    assert 20 < int(both.sum()) < int((batch["labels"] != IGNORE_INDEX).sum())
    assert (labels == batch["labels"])[both].all()
    causal = CausalLmObjective()
    ours = causal.token_losses(run_forward(model, [causal], batch, "float64"), batch)
    hidden = hidden_states(model, batch["input_ids"], batch["position_ids"])
    forward = mntp.forwards()[0]
    theirs = -label_logps(hidden, head_weight(model), labels, offset=forward.offset)
    torch.testing.assert_close(theirs[both], ours[both], rtol=0, atol=1e-12)
    moved = -label_logps(hidden, head_weight(model), labels, offset=0)
    assert float((moved - ours)[both].abs().max()) > 0.1


def gpt2() -> Any:
    """Return a GPT-2: learned positions, transposed projections, a tied head."""
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2, bos_token_id=0,
        eos_token_id=1, **quiet,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2LMHeadModel(config).double()


def test_packed_rows_of_gpt2_have_transformers_logits_and_gradients_of_each_text_alone() -> None:
    generator = np.random.default_rng(3)
    made = []
    for _ in range(20):
        length = int(generator.integers(3, 9))
        prompt = int(generator.integers(1, length))
        made.append((generator.integers(2, VOCAB, length).tolist(), [0] * prompt + [1] * (length - prompt)))
    rows, model = pack_examples(made, SEQ_LEN), gpt2()
    assert len(rows) <= 8, "all of them are in the step"
    assert len(rows) < 20, "rows hold several texts"
    found, figures = gradients(model, CausalLm(), rows, size=3)
    model.zero_grad(set_to_none=True)
    total = sum(sum(mask[1:]) for _, mask in made)
    loss = torch.zeros((), dtype=torch.float64)
    for ids, mask in made:
        labels = torch.tensor([[token if kept else IGNORE_INDEX for token, kept in zip(ids, mask, strict=True)]])
        logits = model(input_ids=torch.tensor([ids])).logits  # their own loss goes through float32
        loss = loss + F.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum")
    (loss / total).backward()
    expected = {name: one.grad for name, one in model.named_parameters()}
    assert figures.loss == pytest.approx(float(loss.detach()) / total, abs=1e-9)
    assert largest_difference(found, expected) < 1e-9
    assert min(float(one.abs().max()) for name, one in expected.items() if "bias" not in name) > 1e-6


def uniform_model(vocab: int) -> Any:
    model = small_model(vocab=vocab)
    with torch.no_grad():
        head_weight(model).zero_()
    return model


def test_a_uniform_model_over_bytes_needs_eight_bits_a_byte() -> None:
    rows = small_rows(20, vocab=256)
    table = torch.ones(256, dtype=torch.int64)
    found = measure_heldout(
        uniform_model(256), build_objectives(CausalLm()), HeldOut(rows, table), range(len(rows)),
        batch_rows=3, precision="float64", group=alone(),
    )  # fmt: skip
    assert found.bits_per_byte == pytest.approx(8.0, abs=1e-12)


@pytest.mark.parametrize(
    "text", ["plain words, and more of them. ", "Größe 東京 🎉 naïve «слово» "], ids=["ascii", "wide"]
)
def test_bits_of_a_uniform_model_are_its_tokens_over_the_texts_bytes(text: str) -> None:
    """log2 V bits a token, whatever the tokenizer joins; a document's end costs nats and is no byte."""
    tokenizer = train_tokenizer([text * 9], 320, 64)
    ids = tokenizer(text)["input_ids"]
    size = len(tokenizer)
    row = [tokenizer.eos_token_id, *ids, tokenizer.eos_token_id]
    rows = pack_examples([(row, [1] * len(row))], 64)
    table = torch.from_numpy(count_token_bytes(tokenizer, size))
    found = measure_heldout(
        uniform_model(size), build_objectives(CausalLm()), HeldOut(rows, table), range(1),
        batch_rows=1, precision="float64", group=alone(),
    )  # fmt: skip
    assert found.tokens == len(ids) + 1
    assert found.bits_per_byte == pytest.approx(math.log2(size) * len(ids) / len(text.encode()), abs=1e-9)


DIFFUSION = MaskedDiffusionObjective(MASK)


def diffusion_batch(rows: int = 8, tokens: int = 24, supervised: int = 24) -> dict[str, torch.Tensor]:
    ids = torch.from_numpy(np.random.default_rng(1).integers(2, VOCAB, (rows, tokens)))
    labels = ids.clone()
    labels[:, : tokens - supervised] = IGNORE_INDEX
    noise = noise_for_step(0, 0, rows)
    return {
        "input_ids": ids,
        "labels": labels,
        "noise": torch.from_numpy(noise.noise),
        "place": torch.from_numpy(noise.place),
    }


def diffused(logits: torch.Tensor, view: Any) -> torch.Tensor:
    """Return the token losses of "hidden states" that are logits."""
    forward = DIFFUSION.forwards()[0]
    logps = label_logps(
        logits, torch.eye(VOCAB).double(), view["labels"], offset=forward.offset, excluded=forward.excluded
    )
    return DIFFUSION.token_losses({"logps": logps}, view)


def test_what_is_shown_and_the_mask_itself_get_no_gradient() -> None:
    view = DIFFUSION.corrupt(diffusion_batch(), 0.0)
    logits = torch.randn(8, 24, VOCAB, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (slope,) = torch.autograd.grad(diffused(logits, view).sum(), logits)
    masked = view["labels"] != IGNORE_INDEX
    assert 0 < int(masked.sum()) < masked.numel()
    assert float(slope[~masked].abs().max()) == 0.0
    assert float(slope[..., MASK].abs().max()) == 0.0
    assert float(slope[masked].abs().amax(dim=-1).min()) > 0
    expected = F.cross_entropy(
        logits.detach().index_fill(2, torch.tensor([MASK]), -math.inf)[masked], view["labels"][masked], reduction="none"
    )
    weight = view["weight"][:, None].expand(masked.shape)[masked]
    torch.testing.assert_close(diffused(logits.detach(), view)[masked], expected * weight, rtol=1e-12, atol=1e-12)


def test_another_order_of_the_rows_is_the_same_losses_in_that_order() -> None:
    batch, order = diffusion_batch(), torch.tensor([3, 0, 7, 1, 2, 6, 5, 4])
    moved = {name: one[order] for name, one in batch.items()}
    logits = torch.randn(8, 24, VOCAB, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = (
        diffused(given, DIFFUSION.corrupt(one, 0.0)) for given, one in ((logits, batch), (logits[order], moved))
    )
    assert torch.equal(first[order], second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("tokens", [7, 12, 24])
def test_every_number_of_masked_tokens_comes_as_often_over_all_rows(tokens: int) -> None:
    """Exactly, where the rows of a step are a multiple of a row's tokens: no number is lost to rounding at the ends."""
    for step in range(4):
        batch = diffusion_batch(5 * tokens, 24, tokens)
        noise = noise_for_step(11, step, 5 * tokens)
        batch |= {"noise": torch.from_numpy(noise.noise), "place": torch.from_numpy(noise.place)}
        view = DIFFUSION.corrupt(batch, 0.0)
        counts = (view["input_ids"] == MASK).sum(dim=1)
        assert torch.bincount(counts, minlength=tokens + 1).tolist() == [0] + [5] * tokens
        torch.testing.assert_close(view["weight"], tokens / counts.double())


def test_of_a_pair_only_the_answer_is_masked() -> None:
    batch = diffusion_batch(24, 24, 9)
    view = DIFFUSION.corrupt(batch, 0.0)
    masked = view["input_ids"] == MASK
    assert not masked[:, :15].any(), "the prompt is given"
    assert (view["labels"][masked] == batch["input_ids"][masked]).all()
    assert (view["labels"][~masked] == IGNORE_INDEX).all()
    assert int(view["maskable"].sum()) == 24 * 9
    assert int(masked.sum(dim=1).max()) == 9


def test_each_visit_of_a_row_hides_other_tokens() -> None:
    """Dynamic masking: what one visit hides says nothing of the next, so both hide a share of rate squared."""
    [masked] = build_objectives(MaskedLm(masking=Masking(rate=0.3)), small_tokenizer())
    batch = diffusion_batch(64, 256, 255)
    hidden = []
    for step in range(2):
        noise = noise_for_step(0, step, 64)
        batch |= {"noise": torch.from_numpy(noise.noise), "place": torch.from_numpy(noise.place)}
        hidden.append(masked.objective.corrupt(batch, 0.0)["labels"] != IGNORE_INDEX)
    total = 64 * 255
    assert float(hidden[0].sum()) / total == pytest.approx(0.3, abs=0.015)
    assert float((hidden[0] & hidden[1]).sum()) / total == pytest.approx(0.09, abs=3 * (0.09 * 0.91 / total) ** 0.5)


def test_a_term_without_rows_changes_nothing() -> None:
    """Each term has a count of its own: one of no rows brings neither loss nor gradient."""
    model, rows = small_model(), small_rows()
    batch = collate(list(rows)[:8])
    batch["place"] = torch.full((8,), 0.9)
    batch["noise"] = torch.arange(8)
    masked = MaskedLmObjective(Masker(Masking(rate=0.4), VOCABULARY), offset=1)
    given = [Weighted(masked, 1.0, rows=(0.0, 0.5)), Weighted(CausalLmObjective(), 1.0)]
    model.zero_grad(set_to_none=True)
    figures = accumulate_gradients(model, given, [batch], group=alone(), precision="float64", seeds=[0])
    found = {name: one.grad.clone() for name, one in model.named_parameters()}
    plain, only = gradients(model, CausalLm(), rows)
    assert figures.counts["mntp"] == 0
    assert figures.loss == only.loss
    assert largest_difference(found, plain) == 0.0

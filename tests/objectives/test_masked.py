"""Masked language modelling and masked diffusion against closed forms, transformers' own logits, and their ablations."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

sys.path.append(str(Path(__file__).parent.parent / "training"))
from small_run import VOCAB, alone, largest_difference, small_model, small_rows

from genai_core.config.masking import Masking
from genai_core.data.masking import Masker, Vocabulary
from genai_core.data.order import RowNoise, noise_for_step
from genai_core.models.backbone import head_weight, hidden_states, see_segments
from genai_core.objectives.base import IGNORE_INDEX, Weighted
from genai_core.objectives.block_diffusion import BlockDiffusionObjective
from genai_core.objectives.causal_lm import CausalLmObjective
from genai_core.objectives.masked_diffusion import MaskedDiffusionObjective
from genai_core.objectives.masked_lm import MaskedLmObjective
from genai_core.training.rows import take_batch
from genai_core.training.step import accumulate_gradients, run_forward, view_of

MASK = 1
VOCABULARY = Vocabulary(MASK, np.arange(VOCAB) == MASK, np.ones(VOCAB, dtype=bool))
MASKED = MaskedLmObjective(Masker(Masking(rate=0.4), VOCABULARY))
MNTP = MaskedLmObjective(Masker(Masking(rate=0.4), VOCABULARY), offset=1)
DIFFUSION = MaskedDiffusionObjective(MASK)
BLOCK = BlockDiffusionObjective(MASK, 4)
SHIFTED = MaskedDiffusionObjective(MASK, offset=1)
EVERY = {
    "masked": [Weighted(MASKED, 1.0)],
    "mntp": [Weighted(MNTP, 1.0)],
    "diffusion": [Weighted(DIFFUSION, 1.0)],
    "block": [Weighted(BLOCK, 1.0)],
    "annealed": [Weighted(MaskedDiffusionObjective(MASK, offset=1, anneal=0.8), 1.0)],
    "hybrid": [Weighted(MNTP, 0.25, rows=(0.0, 0.25)), Weighted(CausalLmObjective(), 0.75, rows=(0.25, 1.0))],
    "both": [Weighted(CausalLmObjective(), 1.0), Weighted(MASKED, 0.5)],
}
ROWS = 8


def batches_of(size: int, noise: RowNoise | None = None):
    noise = noise or noise_for_step(0, 0, ROWS)
    rows, device = small_rows(), torch.device("cpu")
    return [
        take_batch(rows, range(start, min(start + size, ROWS)), noise[start : start + size], device)
        for start in range(0, ROWS, size)
    ]


def gradients(model, objectives, size):
    model.zero_grad(set_to_none=True)
    batches = batches_of(size)
    figures = accumulate_gradients(
        model, objectives, batches, group=alone(), precision="float32", seeds=[0] * len(batches), progress=0.5
    )
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, figures


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_leave_gradient_and_noise_unchanged(name, size) -> None:
    model = small_model()
    whole, figures = gradients(model, EVERY[name], ROWS)
    cut, cut_figures = gradients(model, EVERY[name], size)
    assert largest_difference(whole, cut) < 1e-12
    assert cut_figures.terms == pytest.approx(figures.terms, abs=1e-12)
    assert cut_figures.counts == figures.counts


@torch.no_grad()
@pytest.mark.parametrize(("objective", "offset"), [(MASKED, 0), (MNTP, 1)], ids=["own", "previous"])
def test_the_loss_is_cross_entropy_of_transformers_own_logits(objective, offset) -> None:
    """One document a row without padding: a full mask, transformers' forward, torch's cross-entropy."""
    model = small_model()
    [batch] = batches_of(ROWS)
    batch["segment_ids"] = torch.arange(ROWS)[:, None].expand(batch["input_ids"].shape).contiguous()
    batch["position_ids"] = torch.arange(batch["input_ids"].shape[1]).expand(batch["input_ids"].shape).contiguous()
    batch["labels"] = batch["input_ids"].clone()
    batch["labels"][:, 0] = IGNORE_INDEX
    view = view_of(Weighted(objective, 1.0), batch, 0.0)
    ours = objective.loss(run_forward(model, [objective], view, "float32"), view).terms[objective.name]
    full = torch.ones(ROWS, 1, view["input_ids"].shape[1], view["input_ids"].shape[1], dtype=torch.bool)
    logits = model(input_ids=view["input_ids"], attention_mask=full, use_cache=False).logits
    if offset:
        logits, view = logits[:, :-1], {**view, "labels": view["labels"][:, 1:]}
    theirs = F.cross_entropy(logits.flatten(0, 1), view["labels"].flatten(), ignore_index=IGNORE_INDEX)
    assert float(ours.loss_sum / ours.count) == pytest.approx(float(theirs), abs=1e-9)
    assert float(ours.loss_sum / ours.count) != pytest.approx(
        float(F.cross_entropy(logits.roll(1, 1).flatten(0, 1), view["labels"].flatten(), ignore_index=IGNORE_INDEX)),
        abs=1e-3,
    ), "one place further is another loss"


def test_both_sides_are_seen_and_no_other_document() -> None:
    model = small_model()
    [batch] = batches_of(ROWS)
    seen = see_segments(batch["segment_ids"])
    before = hidden_states(model, batch["input_ids"], batch["position_ids"], seen)
    changed = batch["input_ids"].clone()
    changed[:, 2] = (changed[:, 2] + 1) % VOCAB
    moved = (hidden_states(model, changed, batch["position_ids"], seen) - before).abs().amax(-1) > 1e-9
    assert (moved == (batch["segment_ids"] == batch["segment_ids"][:, 2:3])).all()


def test_on_tokens_without_a_pattern_nothing_is_learned() -> None:
    """Fresh uniform tokens at every step: what falls below ln V has seen the answer (objectives.md 2.9.2)."""
    for objective, floor in ((MNTP, 0.05), (DIFFUSION, 0.08), (BLOCK, 0.08), (MASKED, 0.05)):
        model = small_model(torch.float32)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        hide_all = MaskedLmObjective(
            Masker(Masking(rate=0.4, mask_share=1.0, random_share=0.0), VOCABULARY),
            offset=objective.forwards()[0].offset,
        )
        used = objective if objective in (DIFFUSION, BLOCK) else hide_all
        generator, losses = torch.Generator().manual_seed(0), []
        for step in range(60):
            ids = torch.randint(2, VOCAB, (32, 16), generator=generator)
            labels = ids.clone()
            labels[:, 0] = IGNORE_INDEX
            noise = noise_for_step(0, step, 32)
            batch = {
                "input_ids": ids,
                "labels": labels,
                "position_ids": torch.arange(16).expand(32, 16),
                "segment_ids": torch.arange(32)[:, None].expand(32, 16),
                "noise": torch.from_numpy(noise.noise),
                "place": torch.from_numpy(noise.place),
            }
            optimizer.zero_grad()
            figures = accumulate_gradients(
                model, [Weighted(used, 1.0)], [batch], group=alone(), precision="float32", seeds=[0]
            )
            optimizer.step()
            losses.append(figures.loss)
        assert np.mean(losses[30:]) > math.log(VOCAB - 2) - floor
        assert np.mean(losses[30:]) < np.mean(losses[:3]) + 0.1


def test_a_share_of_the_rows_is_that_share_of_every_step_and_the_weights_are_the_terms() -> None:
    model = small_model()
    _, figures = gradients(model, EVERY["hybrid"], 3)
    alone_masked = view_of(EVERY["hybrid"][0], batches_of(ROWS)[0], 0.5)
    assert len(alone_masked["input_ids"]) == ROWS // 4, "exactly, because places are spread over the step"
    assert figures.loss == pytest.approx(0.25 * figures.terms["mntp"] + 0.75 * figures.terms["causal_lm"], abs=1e-12)
    assert figures.counts["mntp"] == int((alone_masked["labels"] != IGNORE_INDEX).sum())


def test_places_of_a_share_are_spread_evenly_again() -> None:
    [batch] = batches_of(ROWS)
    view = view_of(Weighted(DIFFUSION, 1.0, rows=(0.5, 1.0)), batch, 0.0)
    assert sorted((view["place"] * 4).long().tolist()) == [0, 1, 2, 3]


def test_objectives_that_look_alike_share_a_pass(monkeypatch) -> None:
    import genai_core.training.step as step_module

    calls = []
    real = step_module.run_forward

    def counting(model, objectives, *rest):
        calls.append(len(objectives))
        return real(model, objectives, *rest)

    monkeypatch.setattr(step_module, "run_forward", counting)
    gradients(small_model(), [Weighted(CausalLmObjective(), 1.0), Weighted(CausalLmObjective(), 0.5)], ROWS)
    assert calls == [2]
    calls.clear()
    gradients(small_model(), EVERY["both"], ROWS)
    assert calls == [1, 1]


def constant_outputs(view, vocab: int):
    """Return the log-probabilities of a model that says the same of every token of `vocab`."""
    return {"logps": -math.log(vocab) * (view["labels"] != IGNORE_INDEX).double()}


def test_a_uniform_model_has_the_bound_ln_v_and_an_oracle_zero() -> None:
    """l of n tokens with weight n / l, divided by all: exactly ln V in every step (diffusion page, 0.2)."""
    for step in range(20):
        noise = noise_for_step(3, step, ROWS)
        [batch] = batches_of(ROWS, noise)
        view = DIFFUSION.corrupt(batch, 0.0)
        term = DIFFUSION.loss(constant_outputs(view, 10), view).terms["masked_diffusion"]
        assert float(term.loss_sum / term.count) == pytest.approx(math.log(10), rel=1e-12)
        assert (
            float(
                DIFFUSION.loss({"logps": torch.zeros_like(view["labels"]).double()}, view)
                .terms["masked_diffusion"]
                .loss_sum
            )
            == 0
        )


def test_the_bound_is_that_of_every_order() -> None:
    """A table of arbitrary conditionals over 4 tokens of 3 kinds: the time integral is the any-order expectation."""
    length, kinds = 4, 3
    rng = np.random.default_rng(0)
    table: dict[tuple[int, ...], np.ndarray] = {}
    for seen in itertools.product(range(kinds + 1), repeat=length):
        raw = rng.gamma(1.0, size=(length, kinds)) + 0.05
        table[seen] = np.log(raw / raw.sum(-1, keepdims=True))
    text = (2, 0, 1, 1)

    def nll(masked: tuple[int, ...], at: int) -> float:
        return -float(table[tuple(kinds if i in masked else text[i] for i in range(length))][at, text[at]])

    exact = np.mean(
        [sum(nll(tuple(order[k:]), order[k]) for k in range(length)) for order in itertools.permutations(range(length))]
    )
    objective = MaskedDiffusionObjective(mask_id=kinds)
    draws, rows = [], 2000
    labels = torch.tensor([text]).repeat(rows, 1)
    for step in range(20):
        noise = noise_for_step(7, step, rows)
        batch = {
            "input_ids": labels.clone(),
            "labels": labels,
            "noise": torch.from_numpy(noise.noise),
            "place": torch.from_numpy(noise.place),
        }
        view = objective.corrupt(batch, 0.0)
        logps = torch.zeros(rows, length, dtype=torch.float64)
        for row in range(rows):
            masked = tuple(np.flatnonzero(view["input_ids"][row].numpy() == kinds))
            for at in masked:
                logps[row, at] = -nll(masked, int(at))
        draws.append(float(objective.token_losses({"logps": logps}, view).sum() / rows))
    error = np.std(draws) / len(draws) ** 0.5
    assert abs(np.mean(draws) - exact) < 4 * error
    unweighted = np.mean([sum(nll(tuple(order), at) for at in range(length)) for order in [range(length)]])
    assert abs(unweighted - exact) > 10 * error, "the estimate is sharp enough to tell another number"


def test_nothing_but_masked_tokens_has_a_loss_and_the_mask_is_never_predicted() -> None:
    model = small_model()
    [batch] = batches_of(ROWS)
    view = DIFFUSION.corrupt(batch, 0.0)
    masked = view["labels"] != IGNORE_INDEX
    assert (view["input_ids"][masked] == MASK).all()
    assert (view["input_ids"][~masked] == batch["input_ids"][~masked]).all()
    assert not (masked & (batch["labels"] == IGNORE_INDEX)).any()
    outputs = run_forward(model, [DIFFUSION], view, "float32")
    assert (DIFFUSION.token_losses(outputs, view) != 0).equal(masked)
    seen = see_segments(view["segment_ids"])
    states = hidden_states(model, view["input_ids"], view["position_ids"], seen)
    logits = states @ head_weight(model).T
    logits[..., MASK] = -math.inf
    expected = logits.log_softmax(-1).gather(-1, view["labels"].clamp_min(0)[..., None])[..., 0]
    torch.testing.assert_close(outputs["logps"][masked], expected[masked], rtol=0, atol=1e-9)


def test_numbers_of_masked_tokens_are_spread_over_the_step_not_over_a_micro_batch() -> None:
    rows, tokens = 8, 80
    noise = noise_for_step(0, 0, rows)
    labels = torch.arange(2, tokens + 2).repeat(rows, 1)
    batch = {
        "input_ids": labels,
        "labels": labels,
        "noise": torch.from_numpy(noise.noise),
        "place": torch.from_numpy(noise.place),
    }
    counts = (DIFFUSION.corrupt(batch, 0.0)["input_ids"] == MASK).sum(1)
    assert sorted(((counts - 1) * rows // tokens).tolist()) == list(range(rows))


def test_a_shifted_head_that_knows_the_next_token_has_no_loss() -> None:
    """Read at the place before: an oracle of the next token is right, read at its own place it is not."""
    [batch] = batches_of(ROWS)
    view = SHIFTED.corrupt(batch, 0.0)
    ids = batch["input_ids"]
    oracle = F.one_hot(ids.roll(-1, 1), VOCAB).double() * 50  # "hidden states" that are logits

    def bound(objective) -> float:
        from genai_core.training.head import label_logps

        forward = objective.forwards()[0]
        logps = label_logps(
            oracle, torch.eye(VOCAB).double(), view["labels"], offset=forward.offset, excluded=forward.excluded
        )
        return float(objective.token_losses({"logps": logps}, view).sum() / view["maskable"].sum())

    assert bound(SHIFTED) < 1e-9
    assert bound(DIFFUSION) > 1


def test_a_step_whose_rows_hide_nothing_has_no_loss() -> None:
    model = small_model()
    [batch] = batches_of(ROWS)
    batch["labels"][:] = IGNORE_INDEX
    for objectives in EVERY.values():
        model.zero_grad(set_to_none=True)
        figures = accumulate_gradients(
            model, objectives, [batch], group=alone(), precision="float32", seeds=[0], progress=0.0
        )
        assert figures.loss == 0.0


@torch.no_grad()
def test_attention_opens_from_causal_to_both_sides() -> None:
    """Half of what is after a token at half of the way; at the ends it is transformers' causal pass, and the open one."""
    model, annealed = small_model(), MaskedDiffusionObjective(MASK, offset=1, anneal=0.5)
    [batch] = batches_of(ROWS)
    batch["segment_ids"] = torch.arange(ROWS)[:, None].expand(batch["input_ids"].shape).contiguous()
    batch["position_ids"] = torch.arange(batch["input_ids"].shape[1]).expand(batch["input_ids"].shape).contiguous()
    shown = []
    for progress in (0.0, 0.5, 1.0):
        view = annealed.corrupt(batch, progress)
        hidden = hidden_states(model, view["input_ids"], view["position_ids"], view["seen"])
        shown.append(hidden)
        assert view["input_ids"].equal(SHIFTED.corrupt(batch, progress)["input_ids"])
    causal = model(input_ids=view["input_ids"], use_cache=False, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(shown[0], causal, rtol=0, atol=1e-10)
    opened = run_forward(model, [SHIFTED], view, "float32")["logps"]
    assert run_forward(model, [annealed], view, "float32")["logps"].equal(opened)
    assert shown[1].equal(shown[2])
    assert float((shown[0] - shown[2]).abs().max()) > 1e-3
    after = torch.ones(16, 16, dtype=torch.bool).triu(1)
    for progress, share in ((0.125, 0.25), (0.25, 0.5), (0.4, 0.8)):
        seen = torch.cat(
            [
                annealed.corrupt(batches_of(ROWS, noise_for_step(0, step, ROWS))[0], progress)["seen"] & after
                for step in range(30)
            ]
        )
        every = torch.cat([see_segments(batches_of(ROWS)[0]["segment_ids"]) & after for step in range(30)])
        assert float(seen.sum() / every.sum()) == pytest.approx(share, abs=0.02)
    assert not annealed.corrupt(batch, 0.25)["seen"][0].equal(annealed.corrupt(batch, 0.25)["seen"][1]), "the row's own"


@torch.no_grad()
def test_with_nothing_hidden_and_attention_causal_the_shifted_head_is_the_causal_models() -> None:
    """DiffuLLaMA's shift parity: before training has begun the checkpoint's own next-token logits are what is scored."""
    model, annealed = small_model(), MaskedDiffusionObjective(MASK, offset=1, anneal=0.5)
    [batch] = batches_of(ROWS)
    view = {**annealed.corrupt(batch, 0.0), "input_ids": batch["input_ids"], "labels": batch["labels"]}
    ours = run_forward(model, [annealed], view, "float32")["logps"]
    logits = head_weight(model) @ hidden_states(model, batch["input_ids"], batch["position_ids"]).mT
    logits[:, MASK] = -math.inf
    theirs = logits.log_softmax(1)[:, :, :-1].gather(1, batch["labels"][:, 1:].clamp_min(0)[:, None])[:, 0]
    known = batch["labels"][:, 1:] != IGNORE_INDEX
    torch.testing.assert_close(ours[:, 1:][known], theirs[known], rtol=0, atol=1e-10)

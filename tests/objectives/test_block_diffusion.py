"""Block diffusion: who sees whom, its two ends (next-token prediction and masked diffusion), and its sum over blocks."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "training"))
from small_run import SEQ_LEN, VOCAB, alone, largest_difference, small_model, small_rows

from genai_core.config.objectives import BlockDiffusion
from genai_core.data.order import noise_for_step
from genai_core.data.packing import pack_examples
from genai_core.models.backbone import head_weight, hidden_states, see_segments
from genai_core.objectives.base import IGNORE_INDEX, Weighted
from genai_core.objectives.block_diffusion import BlockDiffusionObjective, see_blocks
from genai_core.objectives.causal_lm import CausalLmObjective
from genai_core.objectives.masked_diffusion import MaskedDiffusionObjective
from genai_core.training.rows import take_batch
from genai_core.training.step import accumulate_gradients, run_forward

MASK, ROWS = 1, 8


def batch_of(rows=None, count: int = ROWS, step: int = 0):
    rows = small_rows() if rows is None else rows
    return take_batch(rows, range(count), noise_for_step(0, step, count), torch.device("cpu"))


def text_rows(count: int = ROWS):
    ids = np.random.default_rng(0).integers(2, VOCAB, (count, SEQ_LEN)).tolist()
    return pack_examples([(one, [1] * SEQ_LEN) for one in ids], SEQ_LEN)


def gradient(model, objective, batch):
    model.zero_grad(set_to_none=True)
    figures = accumulate_gradients(
        model, [Weighted(objective, 1.0)], [batch], group=alone(), precision="float32", seeds=[0], progress=0.5
    )
    return figures.loss, {name: one.grad.clone() for name, one in model.named_parameters()}


@pytest.mark.parametrize("length", [1, 3, 4, 16])
def test_who_sees_whom_pair_by_pair(length) -> None:
    batch = batch_of()
    view = BlockDiffusionObjective(MASK, length).corrupt(batch, 0.0)
    for row in range(ROWS):
        place = batch["position_ids"][row].tolist() * 2
        segment = batch["segment_ids"][row].tolist() * 2
        assert view["position_ids"][row].tolist() == place
        for i, j in itertools.product(range(2 * SEQ_LEN), repeat=2):
            own, other = place[i] // length, place[j] // length
            match i < SEQ_LEN, j < SEQ_LEN:
                case True, True:
                    allowed = other == own
                case True, False:
                    allowed = other < own
                case False, True:
                    allowed = False
                case _:
                    allowed = other <= own
            assert bool(view["seen"][row, i, j]) == (allowed and segment[i] == segment[j])


@pytest.mark.parametrize(("tokens", "length"), [(16, 4), (64, 8), (64, 64), (64, 1)])
def test_a_quarter_of_the_pairs_and_a_little_more_is_seen(tokens, length) -> None:
    blocks = torch.arange(tokens)[None] // length
    seen = see_blocks(torch.zeros(1, tokens, dtype=torch.long), blocks)
    assert int(seen.sum()) == tokens**2 + tokens * length


def test_nothing_leaks_through_the_model() -> None:
    """A clean token moves what is predicted in later blocks only, a noisy one what is predicted in its own only."""
    model, length = small_model(), 4
    batch = batch_of(text_rows(1), 1)
    view = BlockDiffusionObjective(MASK, length).corrupt(batch, 0.0)
    block = torch.arange(SEQ_LEN) // length
    with torch.no_grad():
        before = hidden_states(model, view["input_ids"], view["position_ids"], view["seen"])
        for changed in range(2 * SEQ_LEN):
            ids = view["input_ids"].clone()
            ids[0, changed] = (ids[0, changed] + 1) % VOCAB
            after = hidden_states(model, ids, view["position_ids"], view["seen"])
            moved = ((after - before).abs().amax(-1)[0] > 1e-9)[:SEQ_LEN]
            own = block[changed % SEQ_LEN]
            assert moved.equal(block == own if changed < SEQ_LEN else block > own)


@pytest.mark.parametrize("rows", [None, text_rows()], ids=["pairs", "text"])
def test_blocks_of_one_token_are_a_causal_models_likelihood_and_gradient(rows) -> None:
    model, batch = small_model(), batch_of(rows)
    loss, slopes = gradient(model, BlockDiffusionObjective(MASK, 1, offset=1), batch)

    class CausalWithoutTheMask(CausalLmObjective):
        def forwards(self):
            from dataclasses import replace

            return tuple(replace(one, excluded=MASK) for one in super().forwards())

    expected, theirs = gradient(model, CausalWithoutTheMask(), batch)
    assert loss == pytest.approx(expected, abs=1e-12)
    assert largest_difference(slopes, theirs) < 1e-12
    other, _ = gradient(model, BlockDiffusionObjective(MASK, 2, offset=1), batch)
    assert abs(other - expected) > 1e-3


@torch.no_grad()
def test_read_at_its_own_place_a_block_of_one_is_the_model_asked_behind_each_beginning() -> None:
    """transformers' own causal forward over x[0 .. t-1] and a mask, its last logits."""
    model, batch = small_model(), batch_of(text_rows())
    objective = BlockDiffusionObjective(MASK, 1)
    view = objective.corrupt(batch, 0.0)
    ours = objective.token_losses(run_forward(model, [objective], view, "float32"), view)
    ids = batch["input_ids"]
    assert (ours[:, 0] == 0).all()
    for at in range(1, SEQ_LEN):
        shown = torch.cat([ids[:, :at], torch.full((ROWS, 1), MASK)], dim=1)
        logits = model(input_ids=shown, use_cache=False).logits[:, -1]
        logits[:, MASK] = -math.inf
        theirs = -logits.log_softmax(-1).gather(1, ids[:, at : at + 1])[:, 0]
        torch.testing.assert_close(ours[:, at], theirs, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("offset", [0, 1])
def test_one_block_for_all_is_masked_diffusion(offset) -> None:
    model, batch = small_model(), batch_of()
    objective, whole = BlockDiffusionObjective(MASK, SEQ_LEN, offset), MaskedDiffusionObjective(MASK, offset)
    view = objective.corrupt(batch, 0.0)
    ours = objective.token_losses(run_forward(model, [objective], view, "float32"), view)
    ids = view["input_ids"][:, :SEQ_LEN]
    masked = (ids == MASK) & (batch["labels"] != IGNORE_INDEX)
    same = {**batch, "input_ids": ids, "labels": batch["labels"].masked_fill(~masked, IGNORE_INDEX)}
    theirs = -run_forward(model, [whole], same, "float32")["logps"] * masked * view["weight"]
    assert int(masked.sum()) > ROWS
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    # a row of text is one block, and draws as masked diffusion draws
    batch = batch_of(text_rows())
    mine, its = objective.corrupt(batch, 0.0), whole.corrupt(batch, 0.0)
    assert (mine["input_ids"] == MASK).sum(1).equal((its["input_ids"] == MASK).sum(1))
    assert mine["weight"].amax(1).equal(its["weight"])


@torch.no_grad()
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("length", [2, 5])
def test_one_pass_is_what_a_pass_for_each_block_gives(length, offset) -> None:
    """The clean blocks before, then the noisy block, each block in a forward of its own: the bound's own conditionals."""
    model, batch = small_model(), batch_of()
    objective = BlockDiffusionObjective(MASK, length, offset)
    view = objective.corrupt(batch, 0.0)
    ours = objective.token_losses(run_forward(model, [objective], view, "float32"), view)
    weight, checked = head_weight(model), 0
    for row in range(ROWS):
        place, segment = batch["position_ids"][row], batch["segment_ids"][row]
        for number in segment.unique():
            here = (segment == number).nonzero()[:, 0]
            for block in range(int(place[here].max()) // length + 1):
                upto = here[place[here] < (block + 1) * length]
                start, blocks = block * length, place[upto] // length
                shown = batch["input_ids"][row, upto].clone()
                shown[start:] = view["input_ids"][row, upto[start:]]
                seen = (blocks[:, None] >= blocks[None, :])[None]
                hidden = hidden_states(model, shown[None], place[upto][None], seen)[0]
                logits = hidden @ weight.T
                logits[:, MASK] = -math.inf
                for at in range(start, len(upto)):
                    token = int(upto[at])
                    expected = 0.0
                    if int(shown[at]) == MASK and int(batch["labels"][row, token]) != IGNORE_INDEX:
                        logp = logits[at - offset].log_softmax(-1)[batch["labels"][row, token]]
                        expected = float(-logp * view["weight"][row, token])
                        checked += 1
                    assert float(ours[row, token]) == pytest.approx(expected, abs=1e-10)
    assert checked > 2 * ROWS


def random_table(length: int, kinds: int, size: int):
    """Return log-probabilities of each place of a block for every state of the block, given what is before it."""
    rng = np.random.default_rng(0)
    table: dict[tuple[int, ...], np.ndarray] = {}
    for start in range(0, length, size):
        for before in itertools.product(range(kinds), repeat=start):
            for own in itertools.product(range(kinds + 1), repeat=min(size, length - start)):
                raw = rng.gamma(1.0, size=(len(own), kinds)) + 0.05
                table[(*before, *own)] = np.log(raw / raw.sum(-1, keepdims=True))
    return table


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_bound_is_the_sum_over_blocks_of_every_order_in_each(size) -> None:
    """A table of arbitrary conditionals over 4 tokens of 3 kinds; a clipped schedule gives another number."""
    length, kinds, text = 4, 3, (2, 0, 1, 1)
    table = random_table(length, kinds, size)

    def nll(start: int, masked: tuple[int, ...], at: int) -> float:
        own = tuple(kinds if start + i in masked else text[start + i] for i in range(size))
        return -float(table[(*text[:start], *own)][at - start, text[at]])

    exact = sum(
        np.mean(
            [
                sum(nll(start, order[k:], order[k]) for k in range(size))
                for order in itertools.permutations(range(start, start + size))
            ]
        )
        for start in range(0, length, size)
    )
    labels = torch.tensor([text]).repeat(400, 1)

    def estimate(rates: tuple[float, float], progress: float) -> tuple[float, float]:
        objective = BlockDiffusionObjective(kinds, size, rates=rates)
        draws = []
        for step in range(20):
            noise = noise_for_step(7, step, len(labels))
            batch = {
                "input_ids": labels,
                "labels": labels,
                "position_ids": torch.arange(length).expand(labels.shape),
                "segment_ids": torch.zeros_like(labels),
                "noise": torch.from_numpy(noise.noise),
                "place": torch.from_numpy(noise.place),
            }
            view = objective.corrupt(batch, progress)
            logps = torch.zeros(len(labels), 2 * length, dtype=torch.float64)
            for row in range(len(labels)):
                masked = tuple(np.flatnonzero(view["input_ids"][row, :length].numpy() == kinds))
                for at in masked:
                    logps[row, at] = -nll(int(at) // size * size, masked, int(at))
            draws.append(float(objective.token_losses({"logps": logps}, view).sum() / len(labels)))
        return float(np.mean(draws)), float(np.std(draws) / len(draws) ** 0.5)

    found, error = estimate((0.0, 1.0), 0.5)
    assert abs(found - exact) < 4 * error + 1e-12
    if size == 1:
        assert error < 1e-12, "the likelihood itself, without a draw"
        return
    clipped, error = estimate((0.6, 1.0), 0.5)
    assert abs(clipped - exact) > 10 * error, "no bound"
    measured, error = estimate((0.6, 1.0), 1.0)
    assert abs(measured - exact) < 4 * error, "a measurement draws from all rates"


@pytest.mark.parametrize("rates", [(0.0, 1.0), (0.3, 0.8)])
@pytest.mark.parametrize("length", [1, 3, 16])
def test_a_uniform_model_has_the_bound_ln_v(length, rates) -> None:
    objective = BlockDiffusionObjective(MASK, length, rates=rates)
    for step in range(10):
        view = objective.corrupt(batch_of(step=step), 0.0)
        logps = -math.log(10) * (view["labels"] != IGNORE_INDEX).double()
        term = objective.loss({"logps": logps}, view).terms["block_diffusion"]
        assert float(term.loss_sum / term.count) == pytest.approx(math.log(10), rel=1e-12)


def test_numbers_of_masked_tokens_are_spread_over_all_blocks_of_the_step() -> None:
    """8 rows of 5 blocks of 40 tokens: one block for each of the 40 numbers; a row's own blocks are far apart."""
    rows, tokens, length = 8, 200, 40
    labels = torch.arange(2, tokens + 2).repeat(rows, 1)
    noise = noise_for_step(0, 0, rows)
    batch = {
        "input_ids": labels,
        "labels": labels,
        "position_ids": torch.arange(tokens).expand(rows, tokens),
        "segment_ids": torch.zeros_like(labels),
        "noise": torch.from_numpy(noise.noise),
        "place": torch.from_numpy(noise.place),
    }
    view = BlockDiffusionObjective(MASK, length).corrupt(batch, 0.0)
    counts = (view["input_ids"][:, :tokens] == MASK).reshape(rows, -1, length).sum(-1)
    assert sorted(counts.flatten().tolist()) == list(range(1, length + 1))
    assert all(sorted((row - 1).div(rows, rounding_mode="floor").tolist()) == list(range(5)) for row in counts)
    assert len({tuple(row.argsort().tolist()) for row in counts}) > 4, "which block has most is the row's own"


def test_a_clipped_schedule_masks_within_its_bounds() -> None:
    for step in range(5):
        view = BlockDiffusionObjective(MASK, SEQ_LEN, rates=(0.4, 0.6)).corrupt(batch_of(text_rows(), step=step), 0.5)
        counts = (view["input_ids"][:, :SEQ_LEN] == MASK).sum(1)
        assert int(counts.min()) >= 6
        assert int(counts.max()) <= 9
    with pytest.raises(ValueError, match=r"least_masked=0\.8 is above most_masked=0\.2"):
        BlockDiffusion(least_masked=0.8, most_masked=0.2)


def test_a_token_of_another_segment_is_never_seen() -> None:
    batch = batch_of()
    view = BlockDiffusionObjective(MASK, 4).corrupt(batch, 0.0)
    assert not (view["seen"] & ~see_segments(batch["segment_ids"]).repeat(1, 2, 2)).any()

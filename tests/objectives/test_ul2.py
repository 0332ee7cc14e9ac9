"""UL2: T5's lengths, what is left out comes back whole, shares, cuts that leave the gradient, and it learns."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "training"))
from small_run import alone, largest_difference, small_model, small_rows

from genai_core.config.objectives import Ul2
from genai_core.data.order import noise_for_step
from genai_core.data.packing import pack_examples
from genai_core.data.tokenizer import train_tokenizer
from genai_core.errors import ConfigError
from genai_core.objectives.base import IGNORE_INDEX, Weighted
from genai_core.objectives.registry import build_objectives
from genai_core.objectives.ul2 import Denoiser, Ul2Objective, count_noise, split_randomly
from genai_core.training.rows import take_batch
from genai_core.training.step import accumulate_gradients

NLU, NLG, S2S, PAD = 50, 51, 52, 1
SENTINELS = range(53, 61)
R, X, S = Denoiser(NLU, 1.0, 0.15, 3), Denoiser(NLG, 1.0, 0.5, 3), Denoiser(S2S, 1.0)
T, ROWS = 32, 8


def text_rows(count: int = ROWS, length: int = T):
    ids = np.random.default_rng(0).integers(2, 50, (count, length)).tolist()
    return pack_examples([(one, [1] * length) for one in ids], length)


def batch_of(rows, count: int = ROWS, step: int = 0):
    return take_batch(rows, range(count), noise_for_step(0, step, count), torch.device("cpu"))


@pytest.mark.parametrize(
    ("rate", "mean_span", "tokens", "target"),
    [
        (0.15, 3, 567, 114),
        (0.15, 8, 587, 100),
        (0.5, 3, 765, 510),
        (0.5, 8, 906, 511),
        (0.15, 64, 599, 92),
        (0.5, 64, 1004, 511),
    ],
)
def test_lengths_are_those_of_t5s_helper(rate, mean_span, tokens, target) -> None:
    """511 tokens of input and the target's, both with T5's end mark (objectives.md 2.6)."""
    noise, spans = count_noise(tokens, rate, mean_span, 512)
    assert tokens - noise + spans + 1 <= 511
    assert noise + spans + 1 == target
    noise, spans = count_noise(tokens + 1, rate, mean_span, 512)
    assert tokens + 1 - noise + spans + 1 > 511 or noise + spans + 1 > 511, "no longer text fits"


def test_every_way_to_cut_is_as_likely() -> None:
    generator = np.random.default_rng(0)
    found = [tuple(split_randomly(5, 3, generator).tolist()) for _ in range(6000)]
    assert len(set(found)) == 6  # 4 choose 2
    assert all(sum(one) == 5 and min(one) >= 1 for one in found)
    counts = np.array([found.count(one) for one in sorted(set(found))])
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 20.5  # chi-square with 5 degrees, p = 0.001


def taken_apart(view, row: int) -> tuple[list[int], list[int]]:
    """Return what stands before the bar and behind it."""
    ids, labels = view["input_ids"][row], view["labels"][row]
    behind = (labels != IGNORE_INDEX).nonzero()[:, 0]
    assert behind.diff().eq(1).all()
    assert labels[behind].equal(ids[behind])
    assert (ids[int(behind[-1]) + 1 :] == PAD).all()
    return ids[: int(behind[0])].tolist(), ids[behind].tolist()


@pytest.mark.parametrize(("denoiser", "least"), [(R, 0.85), (X, 0.7), (S, 0.96)], ids=["r", "x", "s"])
def test_put_together_again_it_is_the_text(denoiser, least) -> None:
    rows = text_rows(200)
    objective = Ul2Objective([denoiser], SENTINELS, PAD)
    view = objective.corrupt(batch_of(rows, 200), 0.0)
    sizes, cuts = [], []
    for row in range(200):
        source, target = taken_apart(view, row)
        assert source[0] == denoiser.mode_id
        if denoiser is S:
            whole = [*source[1:], *target]
            cuts.append(len(target) / len(whole))
        else:
            spans: dict[int, list[int]] = {}
            for token in target:
                spans.setdefault(token, []) if token in SENTINELS else spans[list(spans)[-1]].append(token)
            assert list(spans) == list(SENTINELS)[: len(spans)]
            assert all(spans.values())
            assert source.count(next(iter(spans))) == 1
            whole = [part for token in source[1:] for part in spans.get(token, [token])]
            assert sum(map(len, spans.values())) == count_noise(len(whole), denoiser.rate, 3, len(SENTINELS))[0]
        text = rows[row].input_ids.tolist()
        assert any(text[at : at + len(whole)] == whole for at in range(T - len(whole) + 1))
        sizes.append(len(whole))
    assert min(sizes) >= least * (T - 1) - 1, "little of the text is lost to the marks"
    if denoiser is S:
        assert np.mean(cuts) == pytest.approx(0.5, abs=0.06)
        assert min(cuts) < 0.1
        assert max(cuts) > 0.9


def test_what_stands_before_the_bar_is_read_from_both_sides_and_nothing_behind_it_is() -> None:
    batch = batch_of(text_rows())
    for attention in ("prefix", "causal"):
        view = Ul2Objective([R, X, S], SENTINELS, PAD, attention).corrupt(batch, 0.0)
        for row in range(ROWS):
            bar = len(taken_apart(view, row)[0])
            place = torch.arange(T)
            before = place[None] <= place[:, None]
            assert view["seen"][row].equal(before | (place[None] < bar) if attention == "prefix" else before)


def test_denoisers_are_drawn_by_their_shares() -> None:
    objective = Ul2Objective([Denoiser(NLU, 2.0, 0.15, 3), X, S], SENTINELS, PAD)
    modes = torch.cat(
        [objective.corrupt(batch_of(text_rows(200), 200, step), 0.0)["input_ids"][:, 0] for step in range(10)]
    )
    shares = [float((modes == mode).float().mean()) for mode in (NLU, NLG, S2S)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.05)


def test_a_pair_stays_as_it_is_with_its_prompt_before_the_bar() -> None:
    batch = batch_of(small_rows())
    view = Ul2Objective([R], SENTINELS, PAD).corrupt(batch, 0.0)
    supervised = (batch["labels"] != IGNORE_INDEX).sum(1)
    assert (view["labels"] != IGNORE_INDEX).sum(1).le(supervised + 16).all()
    pairs = 0
    for row in range(ROWS):
        for segment in batch["segment_ids"][row].unique():
            here = (batch["segment_ids"][row] == segment).nonzero()[:, 0]
            known = (batch["labels"][row, here] != IGNORE_INDEX).nonzero()[:, 0]
            if len(known) and len(known) < len(here) - 1:
                assert view["input_ids"][row, here].equal(batch["input_ids"][row, here])
                assert view["labels"][row, here].equal(batch["labels"][row, here])
                assert int(view["seen"][row, here[0]].sum()) == max(1, int(known[0]))
                pairs += 1
    assert pairs > ROWS


@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_leave_the_gradient_unchanged(size) -> None:
    model, rows, noise = small_model(), text_rows(), noise_for_step(0, 0, ROWS)
    objective = Ul2Objective([R, X, S], SENTINELS, PAD)
    found = []
    for step in (ROWS, size):
        model.zero_grad(set_to_none=True)
        batches = [
            take_batch(rows, range(at, min(at + step, ROWS)), noise[at : at + step], torch.device("cpu"))
            for at in range(0, ROWS, step)
        ]
        accumulate_gradients(
            model, [Weighted(objective, 1.0)], batches, group=alone(), precision="float32", seeds=[0] * len(batches)
        )
        found.append({name: one.grad.clone() for name, one in model.named_parameters()})
    assert largest_difference(*found) < 1e-12


def test_it_learns_texts_by_heart_and_nothing_from_tokens_without_a_pattern() -> None:
    objective, losses = Ul2Objective([R, X, S], SENTINELS, PAD), {}
    for name in ("known", "fresh"):
        model, found = small_model(torch.float32), []
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for step in range(150):
            batch = batch_of(text_rows(), ROWS, step)
            if name == "fresh":
                ids = torch.randint(2, 50, (ROWS, T), generator=torch.Generator().manual_seed(step))
                batch |= {"input_ids": ids, "labels": ids.masked_fill(batch["labels"] == IGNORE_INDEX, IGNORE_INDEX)}
            optimizer.zero_grad()
            found.append(
                accumulate_gradients(
                    model, [Weighted(objective, 1.0)], [batch], group=alone(), precision="float32", seeds=[0]
                ).loss
            )
            optimizer.step()
        losses[name] = float(np.mean(found[-10:]))
    assert losses["known"] < 0.5 * losses["fresh"]
    assert losses["fresh"] > 2.5, "sentinels are foreseen, words are not"


def test_the_registry_builds_it_from_a_tokenizers_marks_and_refuses_one_without() -> None:
    lines = ["open file read write close path name"] * 20
    [one] = build_objectives(Ul2(), train_tokenizer(lines, 340, 64, sentinels=8))
    view = one.objective.corrupt(batch_of(text_rows()), 0.0)
    assert (view["labels"] != IGNORE_INDEX).any(dim=1).all()
    with pytest.raises(ConfigError, match=r"0 sentinels and no mode tokens.*data\.tokenizer\.sentinels"):
        build_objectives(Ul2(), train_tokenizer(lines, 320, 64))


@pytest.mark.parametrize("length", range(2, 14))
@pytest.mark.parametrize("one", [R, X, S], ids=["R", "X", "S"])
def test_a_segment_of_any_length_is_denoised_within_it(one, length) -> None:
    rows = pack_examples([(list(range(2, 2 + length)), [1] * length)] * 4, 32)
    batch = batch_of(rows, len(rows))
    view = Ul2Objective((one,), SENTINELS, PAD).corrupt(batch, 0.0)
    assert view["input_ids"].shape == batch["input_ids"].shape
    assert bool((view["labels"] != IGNORE_INDEX).any())

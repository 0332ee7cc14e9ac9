"""Filling in masks: exact where it is said to be exact, against enumerated joints; and the rules of each procedure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from genai_core.config.generation import UnmaskingConfig
from genai_core.generation.unmasking import mask_predict, resample, unmask

V, L, MASK = 3, 3, 3


def joint(seed: int = 0) -> np.ndarray:
    """Return a joint distribution over L tokens of V kinds, far from independent."""
    raw = np.random.default_rng(seed).gamma(0.4, size=(V,) * L) + 0.01
    return raw / raw.sum()


def conditionals(table: np.ndarray):
    """Return a model that says the exact distribution of each asked token given those that are no masks."""

    def predict(ids: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        found = []
        for row, at in asked.nonzero().tolist():
            seen = tuple(slice(None) if token == MASK else token for token in ids[row].tolist())
            part = table[seen]
            left = [i for i, token in enumerate(ids[row].tolist()) if token == MASK]
            summed = part.sum(axis=tuple(i for i, where in enumerate(left) if where != at))
            with np.errstate(divide="ignore"):
                found.append(np.log(summed / summed.sum()))
        logits = torch.full((len(found), V + 1), -math.inf, dtype=torch.float64)
        if found:
            logits[:, :V] = torch.from_numpy(np.stack(found))
        return logits

    return predict


def distance(ids: torch.Tensor, table: np.ndarray) -> float:
    """Return the total variation between samples and a joint."""
    counts = np.zeros_like(table)
    for row in ids.tolist():
        counts[tuple(row)] += 1
    return float(np.abs(counts / len(ids) - table).sum() / 2)


def names(count: int) -> list[str]:
    return [f"row-{number}" for number in range(count)]


ROWS = 6000
NOISE = 0.03
"""Total variation that so many exact samples of 27 outcomes stay below."""


@pytest.mark.parametrize("order", ["random", "confidence", "margin", "entropy", "left"])
def test_one_token_a_pass_draws_from_the_joint_in_any_order(order) -> None:
    table, masks = joint(), torch.full((ROWS, L), MASK)
    found = unmask(conditionals(table), masks, MASK, UnmaskingConfig(order=order), names(ROWS))
    assert found.passes == L
    assert distance(found.ids, table) < NOISE


def test_choosing_by_the_drawn_token_does_not_and_neither_do_two_tokens_a_pass() -> None:
    table, masks = joint(), torch.full((ROWS, L), MASK)
    drawn = unmask(conditionals(table), masks, MASK, UnmaskingConfig(order="drawn"), names(ROWS))
    assert distance(drawn.ids, table) > 3 * NOISE
    several = unmask(conditionals(table), masks, MASK, UnmaskingConfig(order="random", tokens_per_pass=3), names(ROWS))
    alone = [table.sum(axis=tuple(j for j in range(L) if j != i)) for i in range(L)]
    product = np.einsum("i,j,k->ijk", *alone)
    assert several.passes == 1
    assert distance(several.ids, product) < NOISE, "the product of the conditionals"
    assert np.abs(product - table).sum() / 2 > 3 * NOISE


def test_a_pair_of_equals_written_at_once_is_unequal_half_the_time() -> None:
    table = np.diag([0.5, 0.5, 0.0])
    masks = torch.full((2000, 2), MASK)
    found = unmask(conditionals(table), masks, MASK, UnmaskingConfig(tokens_per_pass=2), names(2000))
    assert float((found.ids[:, 0] != found.ids[:, 1]).double().mean()) == pytest.approx(0.5, abs=0.04)
    found = unmask(conditionals(table), masks, MASK, UnmaskingConfig(), names(2000))
    assert bool((found.ids[:, 0] == found.ids[:, 1]).all())


def test_gibbs_reaches_the_joint_from_anywhere() -> None:
    table = joint(1)
    start, free = torch.zeros(ROWS, L, dtype=torch.int64), torch.ones(ROWS, L, dtype=torch.bool)
    assert distance(start, table) > 0.5
    for order in ("left", "random"):
        found = resample(conditionals(table), start, free, MASK, 12, UnmaskingConfig(order=order), names(ROWS))
        assert found.passes == 12 * L
        assert distance(found.ids, table) < NOISE


def test_what_is_not_free_stays() -> None:
    table = joint()
    start = torch.tensor([[0, 1, 2]] * 500)
    free = torch.tensor([[True, False, True]] * 500)
    free[100:200] = False
    found = resample(conditionals(table), start, free, MASK, 3, UnmaskingConfig(order="random"), names(500)).ids
    assert bool((found[:, 1] == 1).all())
    assert bool((found[100:200] == start[100:200]).all())
    given = table[:, 1, :] / table[:, 1, :].sum()
    assert distance(torch.cat([found[:100], found[200:]])[:, [0, 2]], given) < 0.15


def oracle(truth: torch.Tensor, vocab: int):
    """Return a model that knows the text."""

    def predict(ids: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        logits = torch.full((int(asked.sum()), vocab), -20.0)
        logits[torch.arange(len(logits)), truth[: len(ids)][asked]] = 20.0
        return logits

    return predict


TRUTH = torch.arange(24).reshape(2, 12) % 7
EVERYTHING = torch.full_like(TRUTH, 9)


@pytest.mark.parametrize("passes", [1, 4, 12])
def test_mask_predict_with_an_oracle_is_the_truth(passes) -> None:
    found = mask_predict(oracle(TRUTH, 10), EVERYTHING, 9, passes, UnmaskingConfig(temperature=0), names(2))
    assert bool((found.ids == TRUTH).all())
    assert found.passes <= passes


def test_mask_predict_masks_fewer_and_the_least_certain_again() -> None:
    asked_for: list[torch.Tensor] = []
    sure = torch.arange(12, dtype=torch.float32)

    def predict(ids: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        asked_for.append(asked[0].clone())
        logits = torch.zeros(int(asked.sum()), 10)
        logits[:, 0] = sure[asked.nonzero()[:, 1]]
        return logits

    mask_predict(predict, EVERYTHING[:1], 9, 4, UnmaskingConfig(temperature=0), names(1))
    assert [int(asked.sum()) for asked in asked_for] == [12, 9, 6, 3]
    assert asked_for[-1].tolist() == [True] * 3 + [False] * 9


@pytest.mark.parametrize("tokens", [1, 5, 12])
def test_counts_add_up_and_nothing_but_masks_is_written(tokens) -> None:
    ids = EVERYTHING.clone()
    ids[0, :4], ids[1, 3] = 5, 6
    found = unmask(oracle(TRUTH, 10), ids, 9, UnmaskingConfig(tokens_per_pass=tokens), names(2))
    assert found.passes == math.ceil(11 / tokens)
    assert not bool((found.ids == 9).any())
    kept = ids != 9
    assert bool((found.ids[kept] == ids[kept]).all())
    assert bool((found.ids[~kept] == TRUTH[~kept]).all())


def test_blocks_are_finished_from_left_to_right() -> None:
    seen: list[list[int]] = []

    def predict(ids: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        seen.append(asked[0].nonzero()[:, 0].tolist())
        return oracle(TRUTH, 10)(ids, asked)

    unmask(predict, EVERYTHING[:1], 9, UnmaskingConfig(block_length=5, tokens_per_pass=3), names(1))
    assert [min(part) // 5 for part in seen] == [0, 0, 1, 1, 2]
    assert max(max(part) for part in seen[:2]) == 4


def test_a_row_draws_the_same_alone_and_in_any_batch() -> None:
    table, config = joint(), UnmaskingConfig(order="random", seed=3)
    masks = torch.full((6, L), MASK)
    whole = unmask(conditionals(table), masks, MASK, config, names(6)).ids
    backwards = unmask(conditionals(table), masks, MASK, config, names(6)[::-1]).ids
    assert bool((whole == backwards.flip(0)).all())
    alone = unmask(conditionals(table), masks[:1], MASK, config, names(6)[2:3]).ids
    assert bool((alone == whole[2:3]).all())
    blocks = config.model_copy(update={"block_length": 1, "order": "left"})
    partly = torch.tensor([[MASK, 1, 2], [MASK, MASK, MASK], [0, MASK, MASK]])
    together = unmask(conditionals(table), partly, MASK, blocks, names(3)).ids
    single = [unmask(conditionals(table), partly[i : i + 1], MASK, blocks, names(3)[i : i + 1]).ids for i in range(3)]
    assert bool((together == torch.cat(single)).all())
    other = unmask(conditionals(table), masks, MASK, config.model_copy(update={"seed": 4}), names(6)).ids
    assert bool((other != whole).any())


def test_a_head_of_one_half_is_drawn_half_of_the_time() -> None:
    """One token of probability 1/2 and 5,000 that share the rest: noise of few bits would draw it always."""
    logits = torch.full((1, 5001), math.log(0.5 / 5000))
    logits[0, 0] = math.log(0.5)
    rows = 2000
    found = unmask(
        lambda ids, asked: logits.expand(int(asked.sum()), -1),
        torch.full((rows, 1), 9999),
        9999,
        UnmaskingConfig(),
        names(rows),
    )
    assert float((found.ids == 0).double().mean()) == pytest.approx(0.5, abs=0.035)


@pytest.mark.parametrize("order", ["confidence", "drawn", "random", "left"])
@pytest.mark.parametrize("tokens", [1, 2])
def test_orders_of_all_kinds_fill_so_many_a_pass(order, tokens) -> None:
    visited: list[int] = []

    def predict(ids: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        visited.append(int(asked.sum()))
        return oracle(TRUTH, 10)(ids, asked)

    unmask(predict, EVERYTHING[:1], 9, UnmaskingConfig(order=order, tokens_per_pass=tokens), names(1))
    assert visited == list(range(12, 0, -tokens))

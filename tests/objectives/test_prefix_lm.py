"""Prefix language modelling: who sees whom, what is predicted, and its two ends (causal, and the prompt of a pair)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "training"))
from small_run import alone, largest_difference, run_small, small_config, small_model, small_rows, weights

from genai_core.config.objectives import PrefixLm
from genai_core.data.order import noise_for_step
from genai_core.data.packing import pack_examples
from genai_core.models.backbone import hidden_states
from genai_core.objectives.base import IGNORE_INDEX, Weighted
from genai_core.objectives.causal_lm import CausalLmObjective
from genai_core.objectives.prefix_lm import PrefixLmObjective
from genai_core.training.rows import take_batch
from genai_core.training.step import run_forward

ROWS = 8
RANDOM, PROMPT = PrefixLmObjective("random"), PrefixLmObjective("prompt")


def batch_of(rows=None, count: int = ROWS, step: int = 0):
    rows = small_rows() if rows is None else rows
    return take_batch(rows, range(count), noise_for_step(0, step, count), torch.device("cpu"))


def text_rows(count: int = ROWS):
    ids = np.random.default_rng(0).integers(2, 61, (count, 16)).tolist()
    return pack_examples([(one, [1] * 16) for one in ids], 16)


def test_the_rule_of_the_formula_token_by_token() -> None:
    batch = batch_of()
    view = RANDOM.corrupt(batch, 0.0)
    for row in range(ROWS):
        positions, segments = batch["position_ids"][row].tolist(), batch["segment_ids"][row].tolist()
        for segment in set(segments):
            here = [t for t in range(16) if segments[t] == segment]
            # the prefix: what the segment's first token sees
            prefix = int(view["seen"][row, here[0]].sum())
            assert 1 <= prefix <= max(1, len(here) - 1)
            for i in range(16):
                for j in here:
                    allowed = segments[i] == segment and (positions[j] < prefix or positions[j] <= positions[i])
                    assert bool(view["seen"][row, i, j]) == allowed
            for t in here:
                label = int(batch["labels"][row, t]) if positions[t] >= prefix else IGNORE_INDEX
                assert int(view["labels"][row, t]) == label


def test_prefixes_are_uniform() -> None:
    rows = text_rows(200)
    lengths = torch.cat([RANDOM.corrupt(batch_of(rows, 200, step), 0.0)["seen"][:, 0].sum(1) for step in range(20)])
    counts = torch.bincount(lengths, minlength=16)
    assert counts[0] == 0
    assert counts[16:].sum() == 0
    expected = len(lengths) / 15
    assert float(((counts[1:16] - expected) ** 2 / expected).sum()) < 36  # chi-square with 14 degrees, p = 0.001


def test_a_token_of_the_prefix_sees_the_later_ones_and_what_is_predicted_does_not() -> None:
    model, batch = small_model(), batch_of(text_rows())
    view = RANDOM.corrupt(batch, 0.0)
    prefix = view["seen"][:, 0].sum(1)
    with torch.no_grad():
        before = hidden_states(model, batch["input_ids"], batch["position_ids"], view["seen"])
        for row in range(ROWS):
            for changed in (int(prefix[row]) - 1, 15):
                other = batch["input_ids"][row : row + 1].clone()
                other[0, changed] = (other[0, changed] + 1) % 61
                after = hidden_states(model, other, batch["position_ids"][row : row + 1], view["seen"][row : row + 1])
                moved = (after - before[row]).abs().amax(-1)[0] > 1e-9
                first = 0 if changed < prefix[row] else changed
                assert moved.tolist() == [t >= first for t in range(16)]


def test_of_a_pair_the_prefix_is_its_prompt_and_all_of_the_answer_is_predicted() -> None:
    batch = batch_of()
    view = PROMPT.corrupt(batch, 0.0)
    assert view["labels"].equal(batch["labels"])
    supervised = batch["labels"] != IGNORE_INDEX
    for row in range(ROWS):
        segments = batch["segment_ids"][row]
        for segment in segments.unique():
            here = (segments == segment).nonzero()[:, 0]
            labelled = here[supervised[row, here]]
            if len(labelled):
                assert int(view["seen"][row, here[0]].sum()) == int(labelled[0] - here[0])


def test_with_a_prefix_of_one_token_it_is_causal_language_modelling() -> None:
    model, batch = small_model(), batch_of(text_rows())
    view = PROMPT.corrupt(batch, 0.0)  # text is trained on from its second token on
    assert int(view["seen"][:, 0].sum(1).max()) == 1
    causal = CausalLmObjective()
    ours = PROMPT.loss(run_forward(model, [PROMPT], view, "float32"), view).terms["prefix_lm"]
    theirs = causal.loss(run_forward(model, [causal], batch, "float32"), batch).terms["causal_lm"]
    assert float((ours.loss_sum - theirs.loss_sum).detach()) == pytest.approx(0, abs=1e-9)
    assert int(ours.count) == int(theirs.count)


def test_cuts_leave_the_weights_and_it_learns(tmp_path) -> None:
    found = []
    for size in (8, 3):
        model = small_model()
        run_small(tmp_path / str(size), model, small_config(objective=PrefixLm()), micro_batch_rows=size)
        found.append(weights(model))
    assert largest_difference(found[0], weights(small_model())) > 1e-2
    assert largest_difference(*found) < 1e-9


def test_a_row_without_labels_has_no_loss() -> None:
    batch = batch_of()
    batch["labels"][:] = IGNORE_INDEX
    view = PROMPT.corrupt(batch, 0.0)
    from genai_core.training.step import accumulate_gradients

    assert int(PROMPT.counts(view)["prefix_lm"]) == 0
    figures = accumulate_gradients(
        small_model(), [Weighted(PROMPT, 1.0)], [batch], group=alone(), precision="float32", seeds=[0]
    )
    assert figures.loss == 0.0

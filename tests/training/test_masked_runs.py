"""Objectives that hide tokens, through the real engine: the same weights for every cut and after a stop; and they learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_run import (
    SEQ_LEN,
    VOCAB,
    MemoryLog,
    alone,
    largest_difference,
    run_small,
    small_config,
    small_model,
    small_rows,
    small_tokenizer,
    weights,
)

from genai_core.config.masking import Masking, WordUnit
from genai_core.config.training import AdamW, HybridLm, MaskedDiffusion, MaskedLm
from genai_core.data.packing import pack_examples
from genai_core.errors import InterruptedRunError
from genai_core.objectives.registry import build_objectives
from genai_core.training.evaluate import HeldOut, measure_heldout

OBJECTIVES = {
    "masked": MaskedLm(masking=Masking(rate=0.3, unit=WordUnit())),
    "mntp": MaskedLm(reads="previous"),
    "hybrid": HybridLm(),
    "diffusion": MaskedDiffusion(),
}
BYTES = torch.ones(VOCAB, dtype=torch.int64)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_and_a_stop_give_the_same_weights(tmp_path, name) -> None:
    config = small_config(objective=OBJECTIVES[name])
    whole, cut, stopped = small_model(), small_model(), small_model()
    run_small(tmp_path / "whole", whole, config)
    run_small(tmp_path / "cut", cut, config, micro_batch_rows=3)
    assert largest_difference(weights(whole), weights(small_model())) > 1e-2  # it has learned something
    assert largest_difference(weights(whole), weights(cut)) < 1e-9
    asked = {"count": 0}

    def stop() -> bool:
        asked["count"] += 1
        return asked["count"] == 8

    with pytest.raises(InterruptedRunError):
        run_small(tmp_path / "stopped", stopped, config, should_stop=stop)
    again = small_model()
    run_small(tmp_path / "stopped", again, config)
    assert largest_difference(weights(whole), weights(again)) == 0.0, "the same tokens were hidden after the resume"


def sentences(count: int = 12):
    """Return rows of one sentence each, every one another."""
    generator = np.random.default_rng(0)
    ids = [generator.integers(2, VOCAB, SEQ_LEN).tolist() for _ in range(count)]
    return pack_examples([(one, [1] * SEQ_LEN) for one in ids], SEQ_LEN)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_sentences_are_learned_by_heart(tmp_path, name) -> None:
    rows, model, log = sentences(), small_model(torch.float32), MemoryLog()
    config = small_config(
        objective=OBJECTIVES[name],
        steps=400,
        global_batch_tokens=16 * SEQ_LEN,
        optimizer=AdamW(learning_rate=1e-2),
        checkpoint_every_steps=400,
        evaluate_every_steps=400,
    )
    figures = run_small(tmp_path, model, config, rows=rows, log=log, held_out=HeldOut(rows, BYTES))
    assert log.curve("train/loss")[0] > 0.8 * math.log(VOCAB)
    assert figures.held_out is not None
    # a diffusion or causal model must first find out which of the sentences it is: ln 12 over 15 tokens, 0.17 nats
    assert figures.held_out.loss_nats < 0.6
    assert (figures.held_out.bits_per_byte is None) == (name in ("masked", "mntp")), "a likelihood, or none"


def test_a_measurement_hides_the_same_tokens_every_time_and_for_every_batch() -> None:
    model = small_model()
    rows = HeldOut(small_rows(30, seed=5), BYTES)
    for config in OBJECTIVES.values():
        objectives = build_objectives(config, small_tokenizer())
        found = [
            measure_heldout(
                model, objectives, rows, range(len(rows.rows)), batch_rows=size, precision="float64", group=alone()
            )
            for size in (1, 4)
        ]
        assert found[0].loss_nats == pytest.approx(found[1].loss_nats, abs=1e-12)
        assert found[0].tokens == found[1].tokens

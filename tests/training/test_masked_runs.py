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
    check_cuts_and_a_stop,
    run_small,
    small_config,
    small_model,
    small_rows,
    small_tokenizer,
)

from genai_core.config.masking import Masking, WordUnit
from genai_core.config.objectives import (
    BlockDiffusion,
    CausalLm,
    HybridLm,
    MaskedDiffusion,
    MaskedLm,
    Mixture,
    MixtureTerm,
)
from genai_core.config.training import AdamW
from genai_core.data.packing import pack_examples
from genai_core.objectives.registry import build_objectives
from genai_core.training.evaluate import HeldOut, measure_heldout

OBJECTIVES = {
    "masked": MaskedLm(masking=Masking(rate=0.3, unit=WordUnit())),
    "mntp": MaskedLm(reads="previous"),
    "hybrid": HybridLm(),
    "diffusion": MaskedDiffusion(),
    "block": BlockDiffusion(block_length=4),
    "block-shifted": BlockDiffusion(block_length=4, reads="previous"),
}
BYTES = torch.ones(VOCAB, dtype=torch.int64)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_and_a_stop_give_the_same_weights(tmp_path, name) -> None:
    check_cuts_and_a_stop(tmp_path, small_config(objective=OBJECTIVES[name], steps=12))


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


MIXTURE = Mixture(
    terms=(
        MixtureTerm(objective=MaskedLm(reads="previous"), weight=0.5, rows=0.25),
        MixtureTerm(objective=MaskedDiffusion(), weight=2.0, rows=0.5, begin=0.5),
        MixtureTerm(objective=CausalLm()),
    )
)


def test_a_mixture_has_its_terms_weights_shares_and_phases(tmp_path) -> None:
    log = MemoryLog()
    run_small(tmp_path, small_model(), small_config(objective=MIXTURE, evaluate_every_steps=5), log=log)
    steps = {step: values for step, values in log.points if "train/loss" in values}
    assert "loss/masked_diffusion" not in steps[10]
    assert "loss/masked_diffusion" in steps[11]
    assert {"loss/mntp", "loss/causal_lm"} <= set(steps[1])
    at = steps[15]
    expected = 0.5 * at["loss/mntp"] + 2 * at["loss/masked_diffusion"] + at["loss/causal_lm"]
    assert at["train/loss"] == pytest.approx(expected, abs=1e-12)
    assert at["weight/masked_diffusion"] == 2.0
    assert 0 < at["count/mntp"] < at["count/masked_diffusion"] < at["count/causal_lm"]
    norms = {step for step, values in log.points if "grad_norm/masked_diffusion" in values}
    assert norms == {15, 20}, "each term's own gradient, while it counts"


def test_terms_one_after_the_other_are_the_runs_of_each(tmp_path) -> None:
    """AntLM's alternation: until a phase ends, the weights are those of a run that never heard of the next."""
    phases = Mixture(
        terms=(
            MixtureTerm(objective=CausalLm(), end=0.5),
            MixtureTerm(objective=MaskedLm(), begin=0.5, end=0.75),
            MixtureTerm(objective=CausalLm(), begin=0.75),
        )
    )
    found: dict[str, list[float]] = {}
    for name, objective in (("phases", phases), ("causal", CausalLm())):
        log = MemoryLog()
        run_small(tmp_path / name, small_model(), small_config(objective=objective), log=log)
        found[name] = log.curve("train/loss")
        found[f"{name}/causal"] = log.curve("loss/causal_lm")
    assert found["phases"][:10] == found["causal"][:10]
    assert found["phases"][10:15] != found["causal"][10:15]
    assert len(found["phases/causal"]) == 15


@pytest.mark.parametrize(
    ("terms", "complaint"),
    [
        ([{"rows": 0.7}, {"objective": {"kind": "masked_lm"}, "rows": 0.6}], "1.3 together"),
        ([{"end": 0.5}], "from 0.5 of the training on no term counts"),
        ([{}, {"begin": 0.5}], "two terms of kind 'causal_lm' count at 0.5"),
        ([{"begin": 0.5, "end": 0.5}], "would never count"),
    ],
)
def test_a_mixture_that_cannot_be_meant_is_refused(terms, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        Mixture.model_validate({"terms": terms})

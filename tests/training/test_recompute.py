"""Activation checkpointing: the same gradient bit for bit, out of a fraction of the memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_run import JOINT, alone, small_model, small_rows, small_tokenizer
from torch.autograd.graph import saved_tensors_hooks

from genai_core.config.model import LoraAdapter
from genai_core.config.objectives import CausalLm, MaskedDiffusion
from genai_core.data.order import noise_of_rows
from genai_core.errors import ConfigError
from genai_core.models.adapters import add_adapter
from genai_core.models.fused import choose_kernels
from genai_core.models.recompute import keep_activations, recompute_layers, recomputes_layers
from genai_core.objectives.registry import build_objectives
from genai_core.training.rows import take_batch
from genai_core.training.step import accumulate_gradients

SCRIPT = Path(__file__).with_name("peak_memory.py")


def gradients_of(model, objective, *, precision="float64", seeds=(7, 8)):
    """Return gradients and the bytes that were kept for the backward pass, two micro-batches together."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # alive, so that no address comes twice
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    batches = [
        take_batch(small_rows(), rows, noise_of_rows(rows), torch.device("cpu")) for rows in ([0, 1, 2], [3, 4, 5])
    ]
    model.train()
    model.zero_grad(set_to_none=True)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        figures = accumulate_gradients(
            model,
            build_objectives(objective, small_tokenizer()),
            batches,
            group=alone(),
            precision=precision,
            seeds=seeds,
        )
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return (
        found,
        figures.loss,
        sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights),
    )


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("objective", [CausalLm(), JOINT, MaskedDiffusion()], ids=lambda one: one.kind)
def test_gradients_are_the_same_bits_with_and_without_dropout(objective, dropout):
    model = small_model(dropout=dropout)
    plain, loss, _ = gradients_of(model, objective)
    recompute_layers(model)
    again, same_loss, _ = gradients_of(model, objective)
    assert same_loss == loss
    assert set(again) == set(plain)
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    if dropout:  # the other half: dropout is there, and other noise is another gradient
        other, _, _ = gradients_of(model, objective, seeds=(9, 10))
        assert not all(torch.equal(plain[name], other[name]) for name in plain)


def test_bfloat16_with_our_own_kernels_is_the_same_too():
    model = small_model(torch.float32, dropout=0.1)
    choose_kernels(model, is_bfloat16=True, row_tokens=16)
    plain, _, _ = gradients_of(model, CausalLm(), precision="bfloat16")
    recompute_layers(model)
    again, _, _ = gradients_of(model, CausalLm(), precision="bfloat16")
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_below_which_nothing_is_trained_gets_the_same_gradient(dora):
    model = add_adapter(small_model(torch.float32), LoraAdapter(rank=4, alpha=8, dora=dora), seed=0)
    with torch.no_grad():  # B is zero at first, and with it the gradient of A
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    plain, _, _ = gradients_of(model, CausalLm(), precision="float32")
    recompute_layers(model)
    again, _, _ = gradients_of(model, CausalLm(), precision="float32")
    assert len(again) == len(plain) > 20
    assert all(float(gradient.abs().max()) > 0 for gradient in again.values())
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_what_is_kept_for_the_backward_pass_shrinks():
    model = small_model(torch.float32)
    _, _, plain = gradients_of(model, CausalLm(), precision="float32")
    recompute_layers(model)
    assert recomputes_layers(model)
    _, _, again = gradients_of(model, CausalLm(), precision="float32")
    keep_activations(model)
    _, _, undone = gradients_of(model, CausalLm(), precision="float32")
    assert undone == plain
    assert again < plain / 2


def test_a_model_without_such_layers_is_refused():
    model = small_model()
    model.supports_gradient_checkpointing = False
    with pytest.raises(ConfigError, match=r"activation_checkpointing=true, but LlamaForCausalLM has no layers"):
        recompute_layers(model)


@pytest.mark.faults
def test_a_process_needs_less_memory():
    """Measured from outside: a child's peak resident set over that before its first step."""
    grown = {}
    for flag in ("keep", "recompute"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(SCRIPT), flag, "12", "256", "128", "8"],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        grown[flag] = json.loads(done.stdout.splitlines()[-1])
    assert grown["keep"]["loss"] == grown["recompute"]["loss"]
    assert grown["recompute"]["grown_bytes"] < grown["keep"]["grown_bytes"] * 0.6

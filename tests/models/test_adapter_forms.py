"""What peft's adapters compute, by the formulas of their papers, at float64: parity where the package is the only source."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path += [str(Path(__file__).parent.parent / "training"), str(Path(__file__).parent.parent / "objectives")]
from small_run import VOCAB, small_model
from test_identities import gpt2

from genai_core.config.model import LoraAdapter
from genai_core.models.adapters import add_adapter, merge_adapter

IDS = torch.arange(2, 18)[None]
MAKERS = {"llama": small_model, "gpt2": gpt2}


def moved(maker: str, config: LoraAdapter) -> Any:
    """Return a model with an adapter whose matrices are no longer those it begins with, at float64."""
    model = add_adapter(MAKERS[maker](), config, seed=0).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "lora_" in name:
                one.add_(0.2 * torch.randn(one.shape, generator=generator, dtype=torch.float64))
    return model


def adapted_layers(model: Any) -> dict[str, Any]:
    return {
        name.removeprefix("base_model.model."): layer
        for name, layer in model.named_modules()
        if hasattr(layer, "lora_A") and len(layer.lora_A)
    }


def weight_of(layer: Any) -> Tensor:
    """Return a base layer's matrix, (out, in): GPT-2 keeps it the other way round."""
    base = layer.get_base_layer()
    weight: Tensor = base.weight
    return weight.T if type(base).__name__ == "Conv1D" else weight


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@torch.no_grad()
def test_merged_weights_are_those_of_the_papers(maker: str, dora: bool) -> None:
    """W0 + (alpha / r) B A; DoRA: its rows brought to the length m that is learned."""
    config = LoraAdapter(rank=3, alpha=12, dora=dora)
    model = moved(maker, config)
    expected, lengths = {}, {}
    for name, layer in adapted_layers(model).items():
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert (a.shape[0], b.shape[1]) == (3, 3)
        whole = weight_of(layer) + 12 / 3 * b @ a
        if dora:
            lengths[name] = layer.lora_magnitude_vector["default"].weight.flatten()
            whole = lengths[name][:, None] * whole / whole.norm(dim=1, keepdim=True)
        expected[name] = whole.clone()
    apart = model(IDS).logits
    merged = merge_adapter(model)
    assert len(expected) == (14 if maker == "llama" else 8), "every linear layer but the head"
    for name, whole in expected.items():
        layer = merged.get_submodule(name)
        weight = layer.weight.T if type(layer).__name__ == "Conv1D" else layer.weight
        torch.testing.assert_close(weight, whole, rtol=0, atol=1e-12)
        if dora:
            torch.testing.assert_close(weight.norm(dim=1), lengths[name].abs(), rtol=1e-12, atol=0)
    torch.testing.assert_close(merged(IDS).logits, apart, rtol=0, atol=1e-9)
    plain = MAKERS[maker]()
    assert float((plain(IDS).logits - apart).abs().max()) > 0.1, "the adapter does something"
    assert apart.shape[-1] == VOCAB


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_gradients_are_those_of_the_formula(dora: bool) -> None:
    """Of one layer: torch's gradient of the paper's matrix; DoRA's row norm is a constant to it (its section 4.3)."""
    model = moved("llama", LoraAdapter(rank=3, alpha=12, dora=dora))
    layer = next(iter(adapted_layers(model).values()))
    x = torch.randn(5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    target = torch.randn(5, weight_of(layer).shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    a, b = (part["default"].weight.detach().clone().requires_grad_() for part in (layer.lora_A, layer.lora_B))
    parts, names = [a, b], ["lora_A", "lora_B"]
    whole = weight_of(layer).detach() + 4 * b @ a
    if dora:
        m = layer.lora_magnitude_vector["default"].weight.detach().clone().requires_grad_()
        parts, names = [*parts, m], [*names, "lora_magnitude_vector"]
        whole = m.flatten()[:, None] * whole / whole.detach().norm(dim=1, keepdim=True)
    expected = torch.autograd.grad((x @ whole.T * target).sum(), parts)
    (layer(x) * target).sum().backward()
    for name, slope in zip(names, expected, strict=True):
        found = getattr(layer, name)["default"].weight.grad
        torch.testing.assert_close(found, slope, rtol=0, atol=1e-9, msg=name)
        assert float(slope.abs().max()) > 1e-3

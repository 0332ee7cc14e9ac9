"""LoRA and DoRA: the base at the start, nothing but the adapter moves, merged equals apart."""

import pytest
import torch
from test_probes import make_model

from genai_core.config.model import LoraAdapter
from genai_core.errors import ModelError
from genai_core.models.adapters import add_adapter, merge_adapter

IDS = torch.arange(20)[None]
KINDS = [
    LoraAdapter(rank=4, alpha=8),
    LoraAdapter(rank=4, alpha=8, dora=True),
    LoraAdapter(rank=2, targets="attention"),
]


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def train_a_little(model):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_changes_nothing_and_its_second_matrix_learns_first(kind):
    base = logits(make_model())
    adapted = add_adapter(make_model(), kind, seed=3)
    torch.testing.assert_close(logits(adapted), base, rtol=0, atol=1e-6 if kind.dora else 0)
    adapted(IDS, labels=IDS).loss.backward()
    for name, parameter in adapted.named_parameters():
        if "lora_A" in name:
            assert float(parameter.grad.abs().max()) == 0.0
        if "lora_B" in name:
            assert float(parameter.grad.abs().max()) > 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_adapter_moves_and_merging_keeps_the_function(kind):
    base = {name: p.clone() for name, p in make_model().named_parameters()}
    adapted = add_adapter(make_model(), kind, seed=3)
    train_a_little(adapted)
    for name, parameter in adapted.named_parameters():
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if plain in base:
            assert not parameter.requires_grad
            assert torch.equal(parameter, base[plain]), name
    apart = logits(adapted)
    assert float((apart - logits(make_model())).abs().max()) > 1e-3
    merged = merge_adapter(adapted)
    torch.testing.assert_close(logits(merged), apart, rtol=0, atol=1e-5)


def test_parameters_are_as_many_as_the_formula_says():
    adapted = add_adapter(make_model(), LoraAdapter(rank=4), seed=0)
    shapes = [
        m.weight.shape for n, m in make_model().named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"
    ]
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert trained == sum(4 * (d_out + d_in) for d_out, d_in in shapes)


def test_the_seed_decides_and_the_global_noise_is_untouched():
    def first_matrix(seed):
        return next(p for n, p in add_adapter(make_model(), LoraAdapter(), seed).named_parameters() if "lora_A" in n)

    assert torch.equal(first_matrix(1), first_matrix(1))
    assert not torch.equal(first_matrix(1), first_matrix(2))
    model, before = make_model(), torch.get_rng_state()
    add_adapter(model, LoraAdapter(), seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_a_model_without_such_layers_is_refused():
    class NoLinear(torch.nn.Module):
        config = make_model().config

        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(3, 3)

    with pytest.raises(ModelError, match=r"no layer for tuning\.targets='attention'"):
        add_adapter(NoLinear(), LoraAdapter(targets="attention"), seed=0)

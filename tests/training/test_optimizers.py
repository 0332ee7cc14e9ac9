"""Muon and AdamW side by side: who updates what, by which rule, and exactly through a resume."""

from __future__ import annotations

import pytest
import torch

from genai_core.config.model import LoraAdapter
from genai_core.config.training import AdamW, Muon
from genai_core.errors import InterruptedRunError
from genai_core.models.adapters import add_adapter
from genai_core.training.muon import BatchedMuon
from genai_core.training.optimizers import make_optimizers
from tests.training.small_run import MemoryLog, run_small, small_config, small_model, weights

MUON = Muon(learning_rate=0.02, adamw_learning_rate=3e-3, weight_decay=0.0)


def give_gradients(model) -> None:
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def test_a_step_of_muon_moves_every_singular_direction_alike():
    """The update of a matrix is its momentum made orthogonal: all singular values near 1, those of the gradient far apart."""
    model = small_model(dtype=torch.float32)
    give_gradients(model)
    matrix = model.model.layers[0].mlp.up_proj.weight  # (d_ff, D), taller than wide
    # one direction much stronger than the others
    matrix.grad[:] += (
        1000 * torch.outer(torch.ones(matrix.shape[0]), torch.ones(matrix.shape[1])) / matrix.numel() ** 0.5
    )
    spread = torch.linalg.svdvals(matrix.grad)
    before = weights(model)
    make_optimizers(model, MUON).step(1.0)

    scale = 0.02 * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
    moved = (before["model.layers.0.mlp.up_proj.weight"] - matrix.detach()) / scale
    values = torch.linalg.svdvals(moved)
    assert spread[0] > 8 * spread[1] and spread[0] > 20 * spread[-1]
    assert values.max() < 1.3 and values.min() > 0.5  # five steps of the quintic leave 0.7 - 1.2
    left, _, right = torch.linalg.svd(matrix.grad, full_matrices=False)
    assert (moved * (left @ right)).sum() / len(values) > 0.85  # and it is the nearest one, U V^T


def test_ten_steps_are_those_of_torch_up_to_the_rounding_of_bfloat16():
    ours, theirs = small_model(dtype=torch.float32), small_model(dtype=torch.float32)
    start = weights(ours)
    chosen = [[p for n, p in model.named_parameters() if ".layers." in n and p.ndim == 2] for model in (ours, theirs)]
    optimizers = [
        BatchedMuon(chosen[0], lr=0.02, momentum=0.95, weight_decay=0.1),
        torch.optim.Muon(chosen[1], lr=0.02, momentum=0.95, weight_decay=0.1),
    ]
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        for one, other in zip(*chosen, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for name, value in weights(ours).items():
        if ".layers." in name and value.ndim == 2:
            way = (weights(theirs)[name] - start[name]).norm()
            assert (value - weights(theirs)[name]).norm() / way < 0.02, name


def test_embeddings_and_vectors_follow_adamw():
    model, other = small_model(dtype=torch.float32), small_model(dtype=torch.float32)
    give_gradients(model)
    give_gradients(other)
    before = weights(model)
    make_optimizers(model, MUON).step(0.5)
    make_optimizers(other, AdamW(learning_rate=3e-3, weight_decay=0.0)).step(0.5)
    after, adamw = weights(model), weights(other)
    for name in before:
        is_layer_matrix = ".layers." in name and before[name].ndim == 2
        assert torch.equal(after[name], adamw[name]) != is_layer_matrix, name
        assert not torch.equal(after[name], before[name]), name


def test_only_the_matrices_of_the_layers_decay():
    decayed, plain = small_model(dtype=torch.float32), small_model(dtype=torch.float32)
    for model, decay in ((decayed, 0.5), (plain, 0.0)):
        give_gradients(model)
        make_optimizers(model, MUON.model_copy(update={"weight_decay": decay})).step(1.0)
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(decayed)[name]) != (".layers." in name and value.ndim == 2), name


def test_adapters_are_orthogonalised_and_the_base_is_left_alone():
    model = add_adapter(small_model(dtype=torch.float32), LoraAdapter(rank=2, alpha=4), 0)
    give_gradients(model)
    before = weights(model)
    make_optimizers(model, MUON).step(1.0)
    moved = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if "lora_" in name}
    name = next(name for name in sorted(moved) if "lora_A" in name)
    values = torch.linalg.svdvals(before[name] - weights(model)[name]) / 0.02
    assert values.max() < 1.3 and values.min() > 0.5


@pytest.mark.parametrize("steps_before", [0, 5, 8])
def test_a_stopped_run_resumes_to_the_bits_of_an_unbroken_one(tmp_path, steps_before):
    config = small_config(optimizer=MUON)
    whole = small_model(dtype=torch.float32)
    run_small(tmp_path / "whole", whole, config)

    asked = iter(range(100))
    with pytest.raises(InterruptedRunError):
        run_small(
            tmp_path / "broken",
            small_model(dtype=torch.float32),
            config,
            should_stop=lambda: next(asked) == steps_before,
        )
    resumed, log = small_model(dtype=torch.float32, seed=99), MemoryLog()
    run_small(tmp_path / "broken", resumed, config, log=log)
    assert log.said(f"resumed at step {steps_before}")
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_muon_learns_faster_than_adamw_here(tmp_path):
    """Not a claim about Muon: it shows that the whole path works, gradients, rates and momentum."""
    losses = {}
    for kind, optimizer in (("muon", MUON), ("adamw", AdamW(learning_rate=3e-3, weight_decay=0.0))):
        model = small_model(dtype=torch.float32)
        losses[kind] = run_small(tmp_path / kind, model, small_config(steps=60, optimizer=optimizer)).train_loss
    assert losses["muon"] < losses["adamw"]

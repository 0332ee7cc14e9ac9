"""Norm and rotation in fewer passes are norm and rotation: values, gradients, a whole packed model, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from genai_core.config.model import LoraAdapter, ScratchBase
from genai_core.data.tokenizer import train_tokenizer
from genai_core.models.adapters import add_adapter
from genai_core.models.backbone import hidden_states
from genai_core.models.fused import _Norm, _Rotation, choose_kernels, usual_kernels
from genai_core.models.load import init_scratch, load_model, save_model
from genai_core.models.probes import run_probes


def test_the_gradient_of_the_norm_is_its_derivative() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *given: _Norm.apply(*given, 1e-6), (x, weight))
    theirs = LlamaRMSNorm(5, eps=1e-6)
    theirs.weight.data = weight.detach().float()
    assert torch.allclose(_Norm.apply(x.detach().float(), theirs.weight, 1e-6), theirs(x.detach().float()), atol=1e-6)


def test_the_rotation_is_transformers_and_its_gradient_is_its_derivative() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 7, 3, 8, dtype=torch.float64, requires_grad=True)
    angle = torch.randn(2, 7, 4, dtype=torch.float64)
    cos, sin = angle.cos(), angle.sin()
    assert torch.autograd.gradcheck(lambda one: _Rotation.apply(one, cos.unsqueeze(2), sin.unsqueeze(2)), (x,))
    ours = _Rotation.apply(x, cos.unsqueeze(2), sin.unsqueeze(2))
    both = [torch.cat([one, one], dim=-1) for one in (cos, sin)]
    theirs, _ = apply_rotary_pos_emb(x.transpose(1, 2), x.transpose(1, 2), *both)
    assert torch.allclose(ours.transpose(1, 2), theirs, atol=1e-12)


@pytest.fixture
def world() -> tuple[Any, Any]:
    tokenizer = train_tokenizer(["the model reads one document and then another one"] * 4, 320, 64)
    base = ScratchBase(n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=48, max_seq_len=64)
    return init_scratch(base, tokenizer), tokenizer


def gradients(model: Any, vocab: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    ids = torch.randint(0, vocab, (2, 24), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(9), torch.arange(15)]).expand(2, -1)
    model.zero_grad()
    states = hidden_states(model, ids, positions)
    (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
    return states.detach(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("adapted", [False, True])
def test_a_packed_model_says_and_learns_the_same(world: tuple[Any, Any], adapted: bool) -> None:
    model, tokenizer = world
    if adapted:
        model = add_adapter(model, LoraAdapter(rank=4, alpha=8), seed=0)
    before, usual = gradients(model, len(tokenizer))
    choose_kernels(model, is_bfloat16=True, row_tokens=24)
    replaced = [
        module for module in model.modules() if "forward" in module.__dict__ and "RMSNorm" in type(module).__name__
    ]
    assert len(replaced) == 5
    after, ours = gradients(model, len(tokenizer))
    assert torch.allclose(after, before, atol=1e-5)
    assert usual.keys() == ours.keys()
    for name, gradient in usual.items():
        assert torch.allclose(ours[name], gradient, atol=1e-5 * float(gradient.abs().max()) + 1e-6), name
    run_probes(model)
    usual_kernels(model)
    assert not [
        module for module in model.modules() if "forward" in module.__dict__ and "Llama" in type(module).__name__
    ]
    assert torch.equal(gradients(model, len(tokenizer))[0], before)


def example(vocab: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(12).remainder(vocab)[None], torch.arange(12)[None]


def test_it_generates_with_a_cache_and_is_published_as_before(world: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = world
    ids, _ = example(len(tokenizer))
    before = model.generate(ids, max_new_tokens=6, do_sample=False)
    choose_kernels(model, is_bfloat16=True, row_tokens=24)
    assert torch.equal(model.generate(ids, max_new_tokens=6, do_sample=False), before)
    usual_kernels(model)
    save_model(model, tokenizer, tmp_path / "after")
    assert torch.equal(load_model(tmp_path / "after")(ids).logits, model(ids).logits)


def test_it_is_left_alone_where_it_is_not_faster(world: tuple[Any, Any]) -> None:
    model, _ = world
    choose_kernels(model, is_bfloat16=False, row_tokens=24)
    assert not [module for module in model.modules() if "forward" in module.__dict__]

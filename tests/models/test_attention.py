"""Attention by products is attention: the same values and gradients as torch's own, on packed rows of a real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from genai_core.config.model import ScratchBase
from genai_core.data.tokenizer import train_tokenizer
from genai_core.models.attention import LONGEST_ROW, NAME, choose_attention, products_attention, usual_attention
from genai_core.models.backbone import hidden_states
from genai_core.models.load import init_scratch, save_model
from genai_core.models.probes import run_probes


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("masked", [True, False])
def test_values_and_gradients_are_those_of_torchs_own(kv_heads: int, masked: bool) -> None:
    torch.manual_seed(0)
    shapes = ((3, 4, 12, 8), (3, kv_heads, 12, 8), (3, kv_heads, 12, 8))
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    documents = torch.tensor([[0] * 5 + [1] * 7, [0] * 12, [0] * 2 + [1] * 3 + [2] * 7])
    mask = (documents[:, None, :, None] == documents[:, None, None, :]) & torch.ones(12, 12).tril().bool()
    seen = mask if masked else None
    ours, _ = products_attention(torch.nn.Identity(), *given, seen)
    theirs = functional.scaled_dot_product_attention(*given, attn_mask=seen, enable_gqa=True).transpose(1, 2)
    assert torch.allclose(ours, theirs, atol=1e-12)
    weight = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), given),
        torch.autograd.grad((theirs * weight).sum(), given),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.fixture
def model_and_tokenizer() -> tuple[Any, Any]:
    tokenizer = train_tokenizer(["the model reads one document and then another one"] * 4, 320, 64)
    base = ScratchBase(n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=48, max_seq_len=64)
    return init_scratch(base, tokenizer), tokenizer


def test_a_model_says_the_same_and_is_published_as_before(model_and_tokenizer: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = model_and_tokenizer
    ids = torch.randint(0, len(tokenizer), (2, 24), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(9), torch.arange(15)]).expand(2, -1)
    before = hidden_states(model, ids, positions)
    save_model(model, tokenizer, tmp_path / "before")
    assert choose_attention(model, is_bfloat16=True, row_tokens=24)
    assert model.config._attn_implementation == NAME
    assert torch.allclose(hidden_states(model, ids, positions), before, atol=1e-5)
    run_probes(model)
    usual_attention(model)
    assert model.config._attn_implementation == "sdpa"
    save_model(model, tokenizer, tmp_path / "after")
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("before", "after")]
    assert configs[0] == configs[1]


def test_it_is_chosen_only_where_it_is_faster(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, _ = model_and_tokenizer
    assert not choose_attention(model, is_bfloat16=False, row_tokens=24)
    assert not choose_attention(model, is_bfloat16=True, row_tokens=LONGEST_ROW + 1)
    model.set_attn_implementation("eager")
    assert not choose_attention(model, is_bfloat16=True, row_tokens=24)
    usual_attention(model)
    assert model.config._attn_implementation == "eager"

"""Mimetic initialisation: what the products of the attention weights are, and that attention then finds its own token."""

from __future__ import annotations

import torch

from genai_core.config.base import canonical
from genai_core.config.model import ScratchBase
from genai_core.data.tokenizer import train_tokenizer
from genai_core.models.load import init_scratch
from genai_core.models.mimetic import GAIN

BASE = ScratchBase(n_layers=2, d_model=64, n_heads=4, n_kv_heads=2, d_ff=128, max_seq_len=64)
MIMETIC = BASE.model_copy(update={"init": "mimetic"})
SIZE = 16


def make(base: ScratchBase):
    tokenizer = train_tokenizer(["some words of a small vocabulary, some of them twice " * 20], 330, 64)
    return init_scratch(base, tokenizer)


def distance_to_projection(product: torch.Tensor) -> float:
    """Return how far a (D, D) product is from GAIN^2 times a projection of rank SIZE; 1 is as far as it is long."""
    _, vectors = torch.linalg.eigh((product + product.T) / 2)
    projection = GAIN**2 * vectors[:, -SIZE:] @ vectors[:, -SIZE:].T
    return float(((product - projection).norm() / projection.norm()).detach())


def test_every_head_matches_and_passes_on_what_it_sees():
    """Also across the groups of heads that share keys and values: each query head fits its own group's keys."""
    for base, near in ((MIMETIC, True), (BASE, False)):
        for layer in make(base).model.layers:
            attention = layer.self_attn
            for head in range(4):
                own, shared = slice(head * SIZE, (head + 1) * SIZE), slice(head // 2 * SIZE, (head // 2 + 1) * SIZE)
                matches = attention.q_proj.weight[own].T @ attention.k_proj.weight[shared]
                passes = attention.o_proj.weight[:, own] @ attention.v_proj.weight[shared]
                assert (distance_to_projection(matches) < 0.5) == near
                assert (distance_to_projection(passes) < 0.5) == near


def test_attention_prefers_its_own_token_before_any_training():
    """The same token 12 places back gets more attention than other tokens do, which plain weights do not give."""
    shares = {}
    for base in (MIMETIC, BASE):
        model = make(base)
        model.set_attn_implementation("eager")
        ids = torch.arange(10, 22).repeat(2)[None]  # (1, 24): twelve tokens, and the same again
        with torch.no_grad():
            attention = model(input_ids=ids, output_attentions=True).attentions[0][0]  # (H, T, T)
        rows = torch.arange(12, 24)
        twin = attention[:, rows, rows - 12].mean()
        others = sum(attention[:, rows, rows - back].mean() for back in range(1, 12)) / 11
        shares[base.init] = float(twin / others)
    assert shares["mimetic"] > 1.2
    assert abs(shares["normal"] - 1.0) < 0.1


def test_the_seed_decides_and_old_keys_stay():
    first, again, other = make(MIMETIC), make(MIMETIC), make(MIMETIC.model_copy(update={"seed": 1}))
    for (name, value), same, different in zip(
        first.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(value, same), name
        assert value.ndim < 2 or not torch.equal(value, different), name
    assert "init" not in canonical(BASE)
    assert canonical(MIMETIC)["init"] == "mimetic"

"""The probes pass on the real model and fail on each fault they are there for."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from genai_core.config.model import LoraAdapter
from genai_core.errors import ModelError
from genai_core.models.adapters import add_adapter
from genai_core.models.backbone import causal_model, keep_float64
from genai_core.models.probes import causal_probe, head_probe, packing_probe, run_probes
from genai_core.training.step import states_at


def make_model(dtype=torch.float32, attention="sdpa", **more):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, attn_implementation=attention, **more,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).eval()


def call_with(model, **options):
    def states(input_ids, position_ids, seen=None):
        return model.get_decoder()(input_ids=input_ids, position_ids=position_ids, **options).last_hidden_state

    return states


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_they_pass_as_the_engine_calls_it(attention, dtype):
    run_probes(make_model(dtype, attention))


def test_they_pass_under_autocast_and_with_an_adapter_and_dropout():
    model = make_model(attention_dropout=0.5)
    run_probes(model, lambda ids, positions, seen: states_at(model, "bfloat16", ids, positions, seen))
    adapted = add_adapter(make_model(), LoraAdapter(), seed=1)
    adapted.train()
    run_probes(adapted)
    assert adapted.training


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_full_mask_breaks_the_isolation_of_packed_rows_and_is_found(attention):
    model = make_model(attention=attention)
    full = torch.ones(1, 12, dtype=torch.long)
    with torch.no_grad(), pytest.raises(ModelError, match="the second document of a packed row sees the first"):
        packing_probe(model, call_with(model, attention_mask=full, use_cache=False))
    with torch.no_grad():
        packing_probe(model, call_with(model, use_cache=False))


def test_a_cache_breaks_it_too():
    model = make_model()
    with torch.no_grad(), pytest.raises(ModelError, match="rows are not isolated"):
        packing_probe(model, call_with(model, use_cache=True))


def test_bidirectional_attention_is_found():
    model = make_model()
    model.config.is_causal = False
    with torch.no_grad(), pytest.raises(ModelError, match="attention is not causal"):
        causal_probe(model, call_with(model, use_cache=False))


def test_a_model_that_ignores_its_input_is_found():
    model = make_model()
    torch.nn.init.zeros_(model.model.embed_tokens.weight)
    with torch.no_grad(), pytest.raises(ModelError, match="cannot see its own edit"):
        causal_probe(model, call_with(model, use_cache=False))


def test_a_head_that_scales_its_logits_is_found():
    model = make_model()
    model.lm_head.register_forward_hook(lambda module, arguments, output: output / 8)
    with torch.no_grad(), pytest.raises(ModelError, match="scales, caps or shifts them"):
        head_probe(model)


def test_probes_use_up_no_noise():
    before = torch.get_rng_state()
    run_probes(make_model_without_seeding())
    assert torch.equal(before, torch.get_rng_state())


def make_model_without_seeding():
    state = torch.get_rng_state()
    model = make_model()
    torch.set_rng_state(state)
    return model


def test_float64_stays_float64_through_the_norms():
    rough, exact = make_model(torch.float64), make_model(torch.float64)
    keep_float64(exact)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        difference = (rough(ids).logits - exact(ids).logits).abs().max()
    assert 1e-12 < float(difference) < 1e-4  # without it, a claim at float64 would be one at float32
    assert causal_model(exact) is exact

"""A forecast is for planning: within a factor of two of what was measured on the two cores it was made on."""

from __future__ import annotations

import pytest

from genai_core.config.load import load_recipe
from genai_core.stages import forecast

GIGA = 1e9
FLOPS = 150 * GIGA
"""Of the float32 product, on the machine and the morning of these seconds."""

MEASURED = {
    # recipe, stage: seconds, peak bytes of the worker (0: not measured)
    ("quickstart", "pretrain"): (135.0, 1.19 * GIGA),
    ("quickstart", "finetune"): (92.1, 0),
    ("quickstart", "train-g1"): (19.7, 0),
    ("quickstart", "measure-g1"): (23.1, 0),
    ("quickstart", "measure-g2"): (15.7, 0),
    ("quickstart", "sample-corrections"): (8.7, 0),
    ("quickstart", "measure-correction"): (11.5, 0),
    ("quickstart", "evaluate-base"): (10.2, 0),
    ("quickstart", "verify"): (4.3, 0),
    ("smollm2-pydocs", "pretrain"): (489.7, 5.27 * GIGA),
    ("smollm2-pydocs", "train-g1"): (108.1, 5.12 * GIGA),
    ("smollm2-pydocs", "sample-corrections"): (26.8, 0),
    ("smollm2-pydocs", "evaluate-base"): (63.4, 0),
}


@pytest.mark.parametrize(("recipe", "stage"), MEASURED)
def test_a_forecast_is_near_what_happened(monkeypatch: pytest.MonkeyPatch, recipe: str, stage: str) -> None:
    monkeypatch.setattr(forecast, "measured_flops", lambda: FLOPS)
    seconds, memory = MEASURED[recipe, stage]
    found = forecast.forecast_stage(stage, load_recipe(recipe, []))
    assert 0.5 <= found["seconds"] / seconds <= 2.0, found
    if memory:
        assert 0.75 <= found["memory_bytes"] / memory <= 1.33, found


def test_parameters_are_those_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    base = load_recipe("quickstart", []).base
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=base.d_model,
        intermediate_size=base.d_ff,
        num_hidden_layers=base.n_layers,
        num_attention_heads=base.n_heads,
        num_key_value_heads=base.n_kv_heads,
        tie_word_embeddings=True,
    )
    weights = sum(parameter.numel() for parameter in LlamaForCausalLM(config).parameters())
    assert forecast.count_parameters(base, 4096) == weights

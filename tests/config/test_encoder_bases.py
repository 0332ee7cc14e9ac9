"""A recipe whose base is an encoder: what it may ask, and that existing recipes keep their keys."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from genai_core.config.base import canonical
from genai_core.config.model import ScratchBase
from genai_core.config.recipe import Recipe


def recipe(architecture: str, objective: str = "masked_lm", **more: object) -> Recipe:
    return Recipe.model_validate(
        {
            **more,
            "name": "r",
            "base": {"architecture": architecture, "kind": "scratch"},
            "data": {"tokenizer": {"kind": "train", "mask_token": True}},
            "pretraining": {"objective": {"kind": objective}},
        }
    )


@pytest.mark.parametrize("objective", ["causal_lm", "hybrid_lm", "prefix_lm"])
def test_an_encoder_does_not_predict_from_left_to_right(objective: str) -> None:
    with pytest.raises(ValidationError, match=f"sees both sides, but pretraining.objective.kind='{objective}'"):
        recipe("modernbert", objective)
    recipe("llama", objective)


def test_an_encoder_is_not_cut_into_stages() -> None:
    words = "compute.pipeline_stages=2 cuts decoders, but base.architecture='bert' is an encoder"
    with pytest.raises(ValidationError, match=words):
        recipe("bert", compute={"pipeline_stages": 2})
    recipe("llama", compute={"pipeline_stages": 2})


def test_mimetic_weights_are_a_decoders() -> None:
    with pytest.raises(ValidationError, match="init='mimetic' is for architecture='llama', not 'roberta'"):
        ScratchBase(architecture="roberta", init="mimetic")


def test_the_key_of_a_decoder_is_what_it_was() -> None:
    assert canonical(ScratchBase()) == {
        "architecture": "llama",
        "d_ff": 688,
        "d_model": 256,
        "kind": "scratch",
        "max_seq_len": 1024,
        "n_heads": 4,
        "n_kv_heads": 4,
        "n_layers": 6,
        "seed": 0,
        "tie_embeddings": True,
    }

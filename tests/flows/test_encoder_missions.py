"""An encoder's mission ends with its pre-training, wherever the encoder comes from; other flows refuse it at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.registry import find_flow
from genai_core.config.load import load_recipe
from genai_core.config.settings import read_settings
from genai_core.errors import ConfigError
from tasks.session import open_session

HIDES = "pretraining.objective={kind: masked_lm}"
SCRATCH = (
    "base={kind: scratch, architecture: bert, n_layers: 2, d_model: 64, n_heads: 4}",
    "data.tokenizer.mask_token=true",
    HIDES,
)


def planned(home: Path, walk: str, *changes: str) -> list[tuple[str, str]]:
    """Return the stages of a plan and what is to become of them."""
    recipe = load_recipe("minute", list(changes)).seeded()
    with open_session(recipe.name, recipe.compute, settings=read_settings(home=home), planning=True) as session:
        find_flow(walk)[1](recipe)
        return [(row.name, row.status) for row in session.rows]


def folder_base(folder: Path, written: str) -> tuple[str, ...]:
    """Return the overrides of a base in a folder, of which a plan reads what class of model it is."""
    folder.mkdir()
    for name in ("model.safetensors", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    (folder / "config.json").write_text(json.dumps({"architectures": [written], "model_type": "bert"}))
    return f"base={{kind: folder, path: {folder}}}", "data.tokenizer={kind: base}", HIDES


def test_the_mission_of_an_encoder_ends_with_its_pre_training(tmp_path: Path) -> None:
    ended = [("augment", "compute"), ("pretrain", "compute"), ("finetune", "skipped")]
    assert planned(tmp_path / "home", "lifecycle", *SCRATCH) == ended
    assert planned(tmp_path / "home", "lifecycle", *folder_base(tmp_path / "encoder", "BertForMaskedLM")) == ended
    goes_on = planned(tmp_path / "home", "lifecycle", *folder_base(tmp_path / "decoder", "BertLMHeadModel"))
    assert ("finetune", "compute") in goes_on and len(goes_on) > 5


@pytest.mark.parametrize("walk", ["finetuning", "recursion", "correction", "evaluation"])
def test_flows_that_need_a_writer_refuse_an_encoder_before_they_begin(tmp_path: Path, walk: str) -> None:
    with pytest.raises(ConfigError, match=r"base\.architecture='bert' is an encoder: it cannot write text, as fine-"):
        planned(tmp_path / "home", walk, *SCRATCH)
    given = folder_base(tmp_path / "encoder", "BertForMaskedLM")
    with pytest.raises(ConfigError, match=rf"base\.path='{tmp_path / 'encoder'}' is an encoder"):
        planned(tmp_path / "home", walk, *given)

"""An encoder's mission ends with its pre-training, wherever the encoder comes from; other flows refuse it at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from planning import SCRATCH_ENCODER, folder_base, planned

from genai_core.errors import ConfigError


def test_the_mission_of_an_encoder_ends_with_its_pre_training(tmp_path: Path) -> None:
    ended = [("augment", "compute"), ("pretrain", "compute"), ("finetune", "skipped")]
    assert planned(tmp_path / "home", "lifecycle", *SCRATCH_ENCODER) == ended
    assert planned(tmp_path / "home", "lifecycle", *folder_base(tmp_path / "encoder", "BertForMaskedLM")) == ended
    goes_on = planned(tmp_path / "home", "lifecycle", *folder_base(tmp_path / "decoder", "BertLMHeadModel"))
    assert ("finetune", "compute") in goes_on and len(goes_on) > 5


@pytest.mark.parametrize("walk", ["finetuning", "recursion", "correction", "evaluation"])
def test_flows_that_need_a_writer_refuse_an_encoder_before_they_begin(tmp_path: Path, walk: str) -> None:
    with pytest.raises(ConfigError, match=r"base\.architecture='bert' is an encoder: it cannot write text, as fine-"):
        planned(tmp_path / "home", walk, *SCRATCH_ENCODER)
    given = folder_base(tmp_path / "encoder", "BertForMaskedLM")
    with pytest.raises(ConfigError, match=rf"base\.path='{tmp_path / 'encoder'}' is an encoder"):
        planned(tmp_path / "home", walk, *given)

"""The erasure flow as a plan: what it would compute, from which inputs, and what is refused before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from planning import SCRATCH_ENCODER, folder_base, planned

from genai_core.config.base import canonical
from genai_core.config.erasure import ErasureConfig, LabelledConcept
from genai_core.config.load import load_recipe
from genai_core.config.stages import EraseStage
from genai_core.errors import DataError
from genai_core.storage.artifact import ArtifactRef
from tasks.erasure import resolve_erasure


def stages(home: Path, *changes: str) -> list[str]:
    """Return the stages of a plan of the flow."""
    return [name for name, _ in planned(home, "erasure", *changes)]


def write_rows(path: Path, label: str = "label") -> Path:
    path.parent.mkdir(exist_ok=True)
    rows = [{"text": f"A sentence of number {n}.", label: "ab"[n % 2]} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def resolved(path: Path, **more: str) -> dict[str, ArtifactRef]:
    """Return the inputs that a recipe's erasure names."""
    concept = LabelledConcept(path=str(path))
    recipe = load_recipe("minute", [])
    return resolve_erasure(recipe.model_copy(update={"erasure": ErasureConfig(concept=concept, **more)}))


def test_erasing_stands_at_the_end_of_what_makes_the_model(tmp_path: Path) -> None:
    rows = stages(tmp_path)
    assert (rows[0], rows[-1]) == ("augment", "erase") and "promote" not in rows


def test_an_encoder_is_scrubbed_as_it_is_pre_trained(tmp_path: Path) -> None:
    """It cannot write, so nothing tunes it; from scratch the recipe says that it is one, of a folder its config.json."""
    found = stages(tmp_path / "a", *SCRATCH_ENCODER)
    assert found == ["augment", "pretrain", "erase"]
    for written, wanted in (("BertForMaskedLM", found), ("BertLMHeadModel", stages(tmp_path / "b"))):
        assert stages(tmp_path / "c", *folder_base(tmp_path / written, written)) == wanted


def test_the_labels_content_is_part_of_its_identity_and_their_place_is_not(tmp_path: Path) -> None:
    here, there = (write_rows(tmp_path / name / "rows.jsonl") for name in ("here", "there"))
    assert resolved(here)["labelled"].digest == resolved(there)["labelled"].digest
    with here.open("a") as handle:
        handle.write(json.dumps({"text": "One more.", "label": "a"}) + "\n")
    assert resolved(here)["labelled"].digest != resolved(there)["labelled"].digest
    configs = [EraseStage(erasure=ErasureConfig(concept=LabelledConcept(path=str(path)))) for path in (here, there)]
    assert canonical(configs[0]) == canonical(configs[1])


def test_only_what_is_named_is_an_input(tmp_path: Path, test_data: Path) -> None:
    assert resolve_erasure(load_recipe("minute", [])) == {}
    more = {"crows_pairs": "crows_pairs.jsonl.gz", "gap": "gap_dev_validation.jsonl.gz"}
    places = {role: str(test_data / "bias" / name) for role, name in more.items()}
    assert [*resolved(write_rows(tmp_path / "rows.jsonl"), **places)] == ["labelled", "crows_pairs", "gap"]


def test_a_label_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'label'"):
        resolved(write_rows(tmp_path / "rows.jsonl", "topic"))

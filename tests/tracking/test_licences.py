"""Licences of data and base: carried from the config to the card, and no part of any stage's identity."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from pydantic import ValidationError

from genai_core.config.data import AugmentationConfig, JsonlSource, PydocsSource, QuotePairs
from genai_core.config.model import GgufBase, HubBase
from genai_core.config.recipe import Recipe
from genai_core.config.stages import AugmentStage, PretrainStage
from genai_core.config.training import TrainingConfig
from genai_core.models.licences import read_licence
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.digest import stage_key
from genai_core.tracking.card import licences_text, model_card
from genai_core.tracking.licences import Licence, joint_licence, licences_of
from genai_core.tracking.lineage import Node
from tasks.registry import stated_licences


def source(name: str) -> ArtifactRef:
    return ArtifactRef(kind=ArtifactKind.SOURCE, name=name, version="1", digest=name * 3, uri=f"/data/{name}")


def made(name: str, kind: ArtifactKind) -> ArtifactRef:
    return ArtifactRef(kind=kind, name=name, version="1", digest=name, uri="", key=name)


def origin(data: dict[str, Any], base: dict[str, Any] | None) -> Node:
    config = {"augmentation": {"source": data}}
    corpus = Node(
        made("corpus", ArtifactKind.DATASET), "augment", config=config, inputs={"source": Node(source("text"))}
    )
    inputs = {"corpus": corpus} | ({"base": Node(source("smollm2"))} if base else {})
    pretrained = Node(made("base", ArtifactKind.MODEL), "pretrain", config={"base": base or {}}, inputs=inputs)
    return Node(
        made("tuned", ArtifactKind.MODEL), "tune", config={"x": 1}, inputs={"model": pretrained, "corpus": corpus}
    )


def card_of(node: Node) -> tuple[dict[str, Any], str]:
    card = model_card(
        model_name="m",
        lineage=node,
        evidence=[],
        figures={},
        gate_passed=True,
        gate_reasons=[],
        sealed_openings=1,
        licences=licences_of(node),
    )
    return yaml.safe_load(card.split("---\n")[1]), card


def test_a_licence_moves_no_key_and_a_source_without_one_has_the_key_it_always_had() -> None:
    plain = AugmentationConfig(source=JsonlSource(path="a.jsonl"), pairs=QuotePairs())
    licensed = AugmentationConfig(source=JsonlSource(path="a.jsonl", license="CC-BY-4.0"), pairs=QuotePairs())
    keys = {
        stage_key("augment", 1, AugmentStage(augmentation=one), {"source": source("t")}) for one in (plain, licensed)
    }
    assert len(keys) == 1
    bases = [HubBase(repo="o/m"), HubBase(repo="o/m", license="MIT")]
    assert len({stage_key("pretrain", 1, PretrainStage(base=one, training=TrainingConfig()), {}) for one in bases}) == 1
    # recorded before there were licences
    assert stage_key("augment", 1, AugmentStage(augmentation=AugmentationConfig(source=PydocsSource())), {}) == RECORDED


RECORDED = "85b0aa819b3221657b17c6452f2150bcbc28b42a354173da9e36a43a2049c916"


def test_one_licence_of_all_stands_in_the_header() -> None:
    head, card = card_of(origin({"kind": "jsonl", "license": "Apache-2.0"}, {"kind": "gguf", "license": "apache-2.0"}))
    assert head["license"] == "apache-2.0" and "license_name" not in head
    assert "## Licences\n\n| made of | name | licence |" in card
    assert "| data | text | Apache-2.0 |\n| base | smollm2 | apache-2.0 |" in card


def test_several_or_an_unknown_one_are_other_by_name() -> None:
    head, card = card_of(origin({"kind": "pydocs"}, {"kind": "gguf", "license": "Apache-2.0"}))
    assert (head["license"], head["license_name"]) == ("other", "Apache-2.0, PSF-2.0")
    head, card = card_of(origin({"kind": "text"}, {"kind": "hub", "license": "MIT"}))
    assert (head["license"], head["license_name"]) == ("other", "MIT, not stated")
    assert "| data | text | not stated |" in card
    assert joint_licence([]) == ("other", "")
    assert "Nothing is recorded" in licences_text([])


def test_pydocs_is_pythons_licence_also_in_artifacts_from_before() -> None:
    assert PydocsSource().license == "PSF-2.0"
    assert licences_of(origin({"kind": "pydocs"}, None)) == [Licence("data", "text", "text" * 3, "PSF-2.0")]


def test_what_the_recipe_states_now_counts_although_the_stages_are_reused() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "data": {
                "source": {"kind": "text", "path": "a", "license": "CC0-1.0"},
                "pairs": {"kind": "quotes"},
                "tokenizer": {"kind": "base"},
            },
            "base": {"kind": "gguf", "path": "b.gguf", "license": "MIT"},
        }
    )
    node = origin({"kind": "text", "license": "CC-BY-4.0"}, {"kind": "gguf"})
    texts = [one.text for one in licences_of(node, stated_licences(node, recipe))]
    assert texts == ["CC0-1.0", "MIT"]
    assert [one.text for one in licences_of(node)] == ["CC-BY-4.0", ""]


def test_a_base_folder_is_believed_on_its_own_card(tmp_path: Any) -> None:
    assert read_licence(str(tmp_path)) == ""
    for text, licence in (
        ("---\nlicense: mit\n---\n# m", "mit"),
        ("---\nlicense: other\nlicense_name: MIT, PSF-2.0\n---\n", "MIT, PSF-2.0"),
        ("---\nlicense: [a\n---\n", ""),
        ("# no header", ""),
    ):
        (tmp_path / "README.md").write_text(text)
        assert read_licence(str(tmp_path)) == licence
    (tmp_path / "m.gguf").write_bytes(b"no gguf")
    assert read_licence(str(tmp_path / "m.gguf")) == ""


def test_a_licence_is_text() -> None:
    with pytest.raises(ValidationError, match="license"):
        GgufBase(path="m.gguf", license=3)  # type: ignore[arg-type]


def test_words_of_a_person_stay_words_in_the_card() -> None:
    attack = "<img src=x onerror=alert(1)> [a](javascript:alert(1)) | ![b](http://x) `c` *d*"
    base = {"kind": "hub", "repo_id": "a/b", "license": attack}
    node = origin({"kind": "jsonl", "path": "a.jsonl", "license": attack}, base)
    [address] = [one for one in node.walk() if one.ref.name == "text"]
    hostile = address.ref.model_copy(update={"uri": "/data/<img src=x onerror=alert(1)>`[a](javascript:alert(1))`"})
    object.__setattr__(address, "ref", hostile)
    _, card = card_of(node)
    body = re.sub(r"<details>.*?</details>", "", card.split("---\n", 2)[2], flags=re.DOTALL)
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    assert "<img" not in shown
    assert "<a " not in shown
    assert "<em>d" not in shown
    assert shown.count("&lt;img src=x") >= 4, "said, as words"

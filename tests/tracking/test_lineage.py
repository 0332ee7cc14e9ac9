"""From a model back to every source, on manifests as the store keeps them; and the card that shows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import yaml

from genai_core.errors import StorageError
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.tracking.card import (
    CAUSAL,
    DIFFUSION,
    ENCODER,
    REST,
    Evidence,
    ModelKind,
    exported_card,
    model_card,
    shortened,
    with_loading,
    without_header,
)
from genai_core.tracking.licences import Licence
from genai_core.tracking.lineage import Node, lineage

SOURCE = ArtifactRef(kind=ArtifactKind.SOURCE, name="pydocs", version="3.11", digest="5" * 64, uri="https://u:pw@x/y")


def made(name: str, kind: ArtifactKind = ArtifactKind.MODEL) -> ArtifactRef:
    key = (name.encode().hex() * 64)[:64]
    return ArtifactRef(kind=kind, name=name, version=key[:8], digest=key[::-1], uri=f"/store/{name}", key=key)


CORPUS = made("corpus", ArtifactKind.DATASET)


@pytest.fixture
def manifests() -> dict[str, dict[str, Any]]:
    """A mission of three generations: everything stands on the corpus, every model on the one before."""
    all_of_them: dict[str, dict[str, Any]] = {}

    def put(ref: ArtifactRef, stage: str, inputs: Mapping[str, ArtifactRef]) -> ArtifactRef:
        told = {
            "stage": stage,
            "commit": "c0ffee" * 6,
            "config": {"stage": stage, "api_key": "hunter2"},
            "inputs": {role: one.model_dump(mode="json") for role, one in inputs.items()},
        }
        all_of_them[ref.key] = {"digest": ref.digest, "told": told}
        return ref

    put(CORPUS, "augment", {"source": SOURCE})
    model = put(made("base"), "pretrain", {"corpus": CORPUS})
    for generation in range(1, 4):
        data = put(made(f"synthetic-{generation}"), "synthesize", {"corpus": CORPUS, "model": model})
        model = put(made(f"g{generation}"), "tune", {"corpus": CORPUS, "parent": model, "synthetic": data})
    return all_of_them


def test_everything_is_found_and_shared_things_once(manifests: dict[str, dict[str, Any]]) -> None:
    root = lineage(manifests.__getitem__, made("g3"))
    nodes = list(root.walk())
    assert nodes[0] is root
    assert len(nodes) == len(manifests) + 1
    assert {node.ref.name for node in nodes} == {
        "pydocs", "corpus", "base", "g1", "g2", "g3", "synthetic-1", "synthetic-2", "synthetic-3",
    }  # fmt: skip
    lines = root.lines()
    assert sum("sha256" in line for line in lines) == len(nodes)  # told once, else "(see above)"
    assert lines[0].startswith("model g3@")
    assert "  corpus: dataset corpus@" in lines[1]
    assert "    source: source pydocs@3.11" in lines[2]
    assert all("pw" not in line for line in lines)
    text = json.dumps(root.nested())
    assert "hunter2" not in text
    assert "u:pw" not in text
    assert root.nested()["inputs"]["corpus"]["inputs"]["source"]["ref"]["digest"] == SOURCE.digest


def test_a_mission_of_many_generations_is_not_unfolded_exponentially(manifests: dict[str, dict[str, Any]]) -> None:
    parent = made("g3")
    for generation in range(4, 16):
        key = f"{generation:064x}"
        inputs = {"a": parent.model_dump(mode="json"), "b": parent.model_dump(mode="json")}
        manifests[key] = {"told": {"stage": "tune", "inputs": inputs}}
        parent = parent.model_copy(update={"name": f"g{generation}", "key": key})
    read: list[str] = []

    def count(key: str) -> dict[str, Any]:
        read.append(key)
        return manifests[key]

    assert len(lineage(count, parent).lines()) < 60
    assert len(read) == len(manifests)  # along every path it would be thousands


def test_a_lost_manifest_ends_the_line_visibly(manifests: dict[str, dict[str, Any]]) -> None:
    del manifests[made("base").key]

    def read(key: str) -> dict[str, Any]:
        if key == CORPUS.key:
            raise StorageError("manifest.json is damaged")
        return manifests[key]

    text = "\n".join(lineage(read, made("g3")).lines())
    assert text.count("LINE ENDS HERE") == 2
    assert "manifest.json is damaged" in text


def card_of(root: Node, **changes: Any) -> str:
    row = Evidence("bits_per_byte", "base", 1.9, 2.0, -0.1, -0.12, -0.08, 300)
    facts: dict[str, Any] = {
        "model_name": "pydocs",
        "lineage": root,
        "evidence": [
            row,
            replace(row, against="champion", baseline=2.2, difference=-0.3, low=-0.32, high=-0.28),
            replace(row, against="champion", figure="right|call"),
        ],
        "figures": {"right": 0.5, "valid": 0.75},
        "gate_passed": True,
        "gate_reasons": ["bits per byte fell"],
        "sealed_openings": 3,
        "licences": [Licence("data", "pydocs", SOURCE.digest, "PSF-2.0")],
        "tags": ["quickstart"],
    }
    return model_card(**(facts | changes))


def test_the_card_says_what_a_stranger_must_know(manifests: dict[str, dict[str, Any]]) -> None:
    root = lineage(manifests.__getitem__, made("g3"))
    card = card_of(root)
    head, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head) == {
        "library_name": "transformers",
        "license": "PSF-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["genai", "quickstart"],
    }
    assert "| figure | candidate | base | difference | champion | difference | cases |" in body
    assert "| bits_per_byte | 1.9 | 2 | -0.1 [-0.12, -0.08] | 2.2 | -0.3 [-0.32, -0.28] | 300 |" in body
    assert "| right\\|call | 1.9 |  |  | 2 | -0.1 [-0.12, -0.08] | 300 |" in body
    assert "| valid | 0.75 |  |  |  |  |  |" in body
    assert "**Passed.**\n\n- bits per byte fell" in body
    assert "opened 3 times" in body
    assert f"| pydocs | `{SOURCE.digest[:16]}` |" in body
    assert "| data | pydocs | PSF-2.0 |" in body
    assert 'download_artifacts("models:/pydocs@champion")' in body
    assert "trained from random weights" in body
    assert "hunter2" not in card
    for line in root.markdown().splitlines():
        assert line in body
    refused = card_of(root, gate_passed=False, sealed_openings=1, base_model="o/b", licences=[], evidence=[])
    assert "**Refused" in refused
    assert "opened 1 time when" in refused
    assert "Base model: o/b." in refused
    assert yaml.safe_load(refused.split("---\n")[1])["base_model"] == "o/b"
    assert "nothing to compare with" in refused


def test_the_same_facts_give_the_same_card(manifests: dict[str, dict[str, Any]]) -> None:
    def shuffled(key: str) -> dict[str, Any]:
        told = manifests[key]["told"]
        turned: Callable[[dict[str, Any]], dict[str, Any]] = lambda d: dict(reversed(list(d.items())))  # noqa: E731
        return {"told": turned(told) | {"inputs": turned(told["inputs"]), "config": turned(told["config"])}}

    first = lineage(manifests.__getitem__, made("g3"))
    second = lineage(shuffled, made("g3"))
    assert card_of(first) == card_of(second, figures={"valid": 0.75, "right": 0.5})
    assert card_of(first) != card_of(second, figures={"right": 0.51})


def test_a_shortened_card_keeps_evidence_and_lineage_whole_and_is_cut_only_at_last(
    manifests: dict[str, dict[str, Any]],
) -> None:
    root = lineage(manifests.__getitem__, made("g3"))
    card = without_header(card_of(root))
    assert shortened(card, len(card)) == card
    room = len(card)
    for gone in ("Training", "How to load"):
        room = len(short := shortened(card, room - 1))
        assert f"## {gone}" not in short and short.endswith(REST)
    assert [line for line in short.splitlines() if line.startswith("#")] == [
        "# pydocs",
        "## Evidence",
        "## Gate",
        "## Data",
        "## Licences",
        "## Lineage",
        "## Limits",
    ]
    for line in root.markdown().splitlines():
        assert line in short
    cut = shortened(card, 300)
    assert len(cut) <= 300 and cut.endswith(f"\n\n{REST}")
    assert all(line in card.splitlines() for line in cut.removesuffix(REST).splitlines())


@pytest.mark.parametrize(("kind", "task"), [(ENCODER, "fill-mask"), (DIFFUSION, "text-generation")])
def test_the_card_loads_what_the_model_is_and_does_not_let_it_write_another_way(
    manifests: dict[str, dict[str, Any]], kind: ModelKind, task: str
) -> None:
    root = lineage(manifests.__getitem__, made("g3"))
    exported = exported_card(name="m", file="", licences=[], lineage=root, kind=kind)
    for card in (
        card_of(root, kind=kind),
        exported,
        with_loading(exported_card(name="m", file="", licences=[]), "", kind),
    ):
        assert f"from transformers import {kind.loader}, AutoTokenizer" in card
        assert f"model = {kind.loader}.from_pretrained(folder)" in card
        assert "model.generate(" not in card
        assert ("`genai generate`" in card) == (kind == DIFFUSION)
    assert yaml.safe_load(exported.split("---\n")[1])["pipeline_tag"] == task
    assert f"{kind.what} trained from random weights" in exported
    assert ENCODER.loader != CAUSAL.loader and "model.generate(" in card_of(root)

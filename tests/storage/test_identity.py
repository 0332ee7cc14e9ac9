"""Identity: what defines a result moves its key, and nothing else does."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, create_model

from genai_core.config.base import Config, LeftOutWhile, Location
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.digest import canonical_json, digest_entries, stage_key

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


class Part(Config):
    kind: Literal["part"] = "part"
    width: float = 2.0


class Whole(Config):
    steps: int = 10
    rate: float = 0.5
    names: tuple[str, ...] = ("a", "b")
    part: Part = Part()
    path: Location = "here"
    method: Annotated[str, LeftOutWhile("old")] = "old"


class Before(Config):
    """The same, before `method` was added."""

    steps: int = 10
    rate: float = 0.5
    names: tuple[str, ...] = ("a", "b")
    part: Part = Part()
    path: Location = "here"


def ref(digest: str, **other: Any) -> ArtifactRef:
    return ArtifactRef(
        **{"kind": ArtifactKind.DATASET, "name": "n", "version": "v", "uri": "u", **other, "digest": digest}
    )


BASE = stage_key("tune", 1, Whole(), {"corpus": ref("d1"), "model": ref("d2")})


@settings(deadline=None, max_examples=50)
@given(JSON)
def test_canonical_json_means_the_value_and_has_one_form(value: Any) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(), JSON, max_size=6), st.randoms())
def test_the_order_of_a_mapping_is_irrelevant(value: dict[str, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


@settings(deadline=None, max_examples=50)
@given(st.permutations(["steps", "rate", "names", "part"]))
def test_the_order_of_fields_is_irrelevant(names: list[str]) -> None:
    fields = {name: (info.annotation, info.default) for name, info in Before.model_fields.items() if name != "path"}
    other = create_model("Other", __base__=Config, **{name: fields[name] for name in names})
    assert stage_key("tune", 1, other(), {}) == stage_key("tune", 1, Before(), {})


@settings(deadline=None, max_examples=50)
@given(st.text(), st.text())
def test_no_place_is_in_a_key(place: str, uri: str) -> None:
    inputs = {"model": ref("d2", uri=uri, version="w", name="m"), "corpus": ref("d1")}
    assert stage_key("tune", 1, Whole(path=place), inputs) == BASE


@pytest.mark.parametrize(
    "change",
    [{"steps": 11}, {"rate": 0.25}, {"names": ("b", "a")}, {"part": {"width": 3}}, {"method": "new"}],
    ids=str,
)
def test_every_field_that_defines_the_result_is_in_it(change: dict[str, Any]) -> None:
    config = Whole.model_validate(change)
    assert stage_key("tune", 1, config, {"corpus": ref("d1"), "model": ref("d2")}) != BASE


def test_stage_version_and_inputs_are_in_it() -> None:
    corpus, model = ref("d1"), ref("d2")
    others = [
        stage_key("tune2", 1, Whole(), {"corpus": corpus, "model": model}),
        stage_key("tune", 2, Whole(), {"corpus": corpus, "model": model}),
        stage_key("tune", 1, Whole(), {"corpus": model, "model": corpus}),
        stage_key("tune", 1, Whole(), {"corpus": corpus}),
        stage_key("tune", 1, Whole(), {"corpus": corpus, "base": model}),
    ]
    assert len({BASE, *others}) == 6


def test_a_field_added_later_is_left_out_while_it_keeps_the_old_behaviour() -> None:
    assert stage_key("tune", 1, Whole(), {}) == stage_key("tune", 1, Before(), {})
    assert stage_key("tune", 1, Whole(method="new"), {}) != stage_key("tune", 1, Before(), {})


def test_numbers_of_one_value_and_type_are_one() -> None:
    assert stage_key("tune", 1, Whole(rate=1), {}) == stage_key("tune", 1, Whole(rate=1.0), {})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


class LeftOutInside(Config):
    parts: tuple[Annotated[Part, Field()], ...] = (Part(),)
    by_name: dict[str, Whole] = Field(default={"x": Whole()})


def test_places_inside_lists_and_mappings_are_left_out_too() -> None:
    moved = LeftOutInside(by_name={"x": Whole(path="there")})
    assert stage_key("s", 1, moved, {}) == stage_key("s", 1, LeftOutInside(), {})
    changed = LeftOutInside(by_name={"x": Whole(steps=1)})
    assert stage_key("s", 1, changed, {}) != stage_key("s", 1, LeftOutInside(), {})


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.text(), st.integers(0, 9), st.text()), max_size=5, unique_by=lambda row: row[0]), st.randoms()
)
def test_a_directorys_digest_knows_no_order(entries: list[tuple[str, int, str]], random: Any) -> None:
    shuffled = list(entries)
    random.shuffle(shuffled)
    assert digest_entries(shuffled) == digest_entries(entries)
    assert digest_entries([*entries, ("new", 1, "x")]) != digest_entries(entries)

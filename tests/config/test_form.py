"""The recipe as a form: every field has a label, a meaning and, unless only a person can know it, a value to start from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from genai_core.config.base import label
from genai_core.config.load import recipe_schema

ONLY_A_PERSON_KNOWS = {
    *("name", "path", "repo", "teacher", "prompt_field", "completion_field", "format"),
    *("ask", "accept", "terms", "rows", "seq_len", "end", "mode"),  # one of a list that is empty at the start
}


def fields() -> Iterator[tuple[str, str, dict[str, Any]]]:
    schema = recipe_schema()
    for group, model in {"Recipe": schema, **schema["$defs"]}.items():
        for name, field in model["properties"].items():
            yield group, name, field


@pytest.mark.parametrize(("group", "name", "field"), fields(), ids=lambda part: part if isinstance(part, str) else "")
def test_a_field_has_label_meaning_and_default(group: str, name: str, field: dict[str, Any]) -> None:
    assert field["title"] == label(name)
    assert field["description"].endswith(".")
    assert "default" in field or name in ONLY_A_PERSON_KNOWS


def test_a_choice_has_tabs_that_are_called_what_a_recipe_calls_them() -> None:
    schema = recipe_schema()
    choices = 0
    for _, _, field in fields():
        for place in (field, field.get("items", {})):
            if "discriminator" not in place:
                continue
            choices += 1
            tabs = {schema["$defs"][one["$ref"].rpartition("/")[2]]["title"] for one in place["oneOf"]}
            assert tabs == {label(kind) for kind in place["discriminator"]["mapping"]}
    assert choices > 10


def test_a_kind_is_one_to_choose_from() -> None:
    kinds = [field for _, name, field in fields() if name == "kind" and "const" in field]
    assert kinds
    assert all(field["enum"] == [field["const"]] == [field["default"]] for field in kinds)


@pytest.mark.parametrize(("name", "shown"), [("learning_rate", "Learning rate"), ("s3", "S3"), ("eps", "Eps")])
def test_a_label_is_the_name_in_words(name: str, shown: str) -> None:
    assert label(name) == shown

"""The page of all recipe keys has every key of the schema, and the one in docs/ is not stale."""

from __future__ import annotations

import re
from pathlib import Path

from genai_core.config.load import recipe_schema
from genai_core.config.recipe import Recipe
from genai_core.config.reference import names_of, recipe_reference

ROOT = Path(__file__).parent.parent.parent


def test_the_page_of_recipe_keys_is_not_stale() -> None:
    page = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    assert page == recipe_reference(), "stale: genai recipe schema --markdown > docs/recipes.md"


def test_the_page_explains_every_key_of_every_group_once() -> None:
    """Counted from the schema itself: what the generator walks past would be missing here."""
    page = recipe_reference()
    schema = recipe_schema()
    for name, group in [("Recipe", schema), *schema["$defs"].items()]:
        for key, field in group["properties"].items():
            if key == "kind":
                assert f"**`kind: {field['const']}`**" in page, name
                continue
            words = re.sub(r"([|*<])", r"\\\1", field["description"])
            rows = [
                row for row in page.splitlines() if row.startswith(f"| `{key}` | ") and row.endswith(f"| {words} |")
            ]
            assert rows, f"{name}.{key}"
            if not names_of(field) and key not in group.get("required", ()):
                default = str(field["default"]) if isinstance(field["default"], str) else None
                assert default is None or any(f"`{default or repr(default)}`" in row for row in rows), f"{name}.{key}"


def test_defaults_of_a_group_that_is_left_out_are_told_by_place() -> None:
    """Of the recipe itself, not of its schema: what somebody gets who writes only a name."""
    recipe = Recipe(name="x")
    page = recipe_reference()
    places = {
        "steps": [recipe.pretraining, recipe.finetuning, recipe.recursion.training, recipe.correction.training],
        "max_new_tokens": [recipe.recursion.synthesis.sampling, recipe.correction.sampling],
    }
    for key, groups in places.items():
        row = " | ".join(f"`{getattr(group, key)}`" for group in groups)
        assert f"| `{key}` | {row} |" in page

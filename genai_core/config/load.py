"""From a YAML file and `--set` options to one validated recipe; every mistake told with its place and a remedy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from genai_core.config.recipe import Recipe
from genai_core.errors import ConfigError

LONGEST_RECIPE = 1_000_000
"""Bytes: a hundred times the longest of ours."""

MOST_SHOWN = 8


def recipe_folder() -> Path:
    """Return the folder of the recipes that come with the package."""
    import deployments

    return Path(next(iter(deployments.__path__))) / "recipes"


def list_recipes() -> list[Path]:
    """Return the recipe files that come with the package, by name."""
    return sorted(recipe_folder().glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """Return the file of a recipe given by name or path. Raises ConfigError naming the nearest one."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or "/" in name:
        if not path.is_file():
            raise ConfigError(f"There is no recipe file {name}. Give the path of a YAML file, or a name: {names()}.")
        return path
    own = recipe_folder() / f"{name}.yaml"
    if own.is_file():
        return own
    raise ConfigError(
        f"There is no recipe {name!r}.{nearest(name, [p.stem for p in list_recipes()])} Known: {names()}."
    )


def names() -> str:
    """Return the names of the recipes in one line."""
    return ", ".join(path.stem for path in list_recipes())


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the validated recipe of a name or file, with `key.path=value` overrides applied.

    Raises ConfigError that lists every mistake with its place, its value and the nearest known key.
    """
    path = find_recipe(name)
    if (size := path.stat().st_size) > LONGEST_RECIPE:
        raise ConfigError(f"{path} has {size:,} bytes; a recipe has at most {LONGEST_RECIPE:,}. Is it another file?")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file: {error}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path} is nested deeper than any recipe. Is it another file?") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds {type(values).__name__}, but a recipe is a mapping of keys such as 'name: mine'."
        )
    for override in overrides:
        apply_override(values, override)
    return validate(values, str(path))


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set `a.b.c=value` in nested mappings; the value is read as YAML."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {override!r} is not of the form key=value, such as correction.samples_per_prompt=8.")
    *parents, last = key.strip().split(".")
    place = values
    for parent in parents:
        below = place.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {override}: {parent!r} is a value ({below!r}), not a group of keys.")
        place = below
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value: {error}") from error
    except RecursionError:
        raise ConfigError(f"--set {key}: the value is nested deeper than any of a recipe.") from None


def validate(values: Mapping[str, Any], place: str) -> Recipe:
    """Return the recipe of plain values. Raises ConfigError with every mistake."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False)
        lines = [f"  {describe(detail)}" for detail in details[:MOST_SHOWN]]
        if len(details) > MOST_SHOWN:
            lines.append(f"  ... and {len(details) - MOST_SHOWN} more")
        count = "a mistake" if len(details) == 1 else f"{len(details)} mistakes"
        raise ConfigError(f"{place} has {count}:\n" + "\n".join(lines)) from error


def describe(detail: ErrorDetails) -> str:
    """Return one mistake in one line: where, what, which value, what to do."""
    where = ".".join(str(part) for part in without_tags(detail["loc"])) or "recipe"
    if detail["type"] == "extra_forbidden":
        known = fields_at(detail["loc"][:-1])
        return f"{where}: unknown key.{nearest(str(detail['loc'][-1]), known)} Known here: {', '.join(known)}."
    if detail["type"] == "missing":
        return f"{where}: is missing; it has no default."
    if detail["type"] == "union_tag_invalid":
        context = detail.get("ctx", {})
        tags = [tag.strip().strip("'") for tag in str(context.get("expected_tags", "")).split(",")]
        return f"{where}.kind: {context.get('tag')!r} is not known.{nearest(str(context.get('tag')), tags)} Known: {', '.join(tags)}."
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{where}: {message}"
    return f"{where} = {detail['input']!r}: {message[0].lower()}{message[1:]}."


def nearest(word: str, known: Sequence[str]) -> str:
    """Return ` Did you mean 'x'?` for the most similar known word, or nothing."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def without_tags(place: Sequence[int | str]) -> list[int | str]:
    """Return a pydantic location without the union tags that pydantic puts between field names."""
    kept: list[int | str] = []
    annotation: Any = Recipe
    for part in place:
        model = member(annotation, part)
        if model is not None:
            annotation = model
            continue
        kept.append(part)
        annotation = field_type(annotation, part)
    return kept


def fields_at(place: Sequence[int | str]) -> list[str]:
    """Return the known keys at a pydantic location."""
    annotation: Any = Recipe
    for part in place:
        annotation = member(annotation, part) or field_type(annotation, part)
    return sorted(annotation.model_fields) if is_model(annotation) else []


def is_model(annotation: Any) -> bool:
    """Return whether an annotation is a pydantic model."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def member(annotation: Any, tag: int | str) -> Any:
    """Return the union member whose `kind` is the tag, or None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    for choice in get_args(annotation) if get_origin(annotation) is not None else ():
        if is_model(choice) and "kind" in choice.model_fields and choice.model_fields["kind"].default == tag:
            return choice
    return None


def field_type(annotation: Any, part: int | str) -> Any:
    """Return the annotation of a model's field, or None."""
    if is_model(annotation) and part in annotation.model_fields:
        return annotation.model_fields[part].annotation
    return None


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe: every key with its type, default and description."""
    return Recipe.model_json_schema()

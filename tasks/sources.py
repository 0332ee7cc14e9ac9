"""The user's own things, resolved once at the start of a flow run to digests that enter the stage keys."""

from __future__ import annotations

from genai_core.config.base import Config
from genai_core.config.recipe import Recipe
from genai_core.storage.artifact import ArtifactRef


class Sources(Config):
    """What comes from outside: the text, and the base model unless it is made from scratch."""

    text: ArtifactRef
    base: ArtifactRef | None = None


def resolve_sources(recipe: Recipe) -> Sources:
    """Return the digests of the recipe's text and base model. Raises DataError or ModelError before anything runs."""
    from genai_core.data.resolve import fields_of, resolve_source
    from genai_core.models.resolve import check_base, resolve_base

    base = resolve_base(recipe.base)
    if base is not None:
        check_base(recipe.base, base, recipe.longest_sequence())
    text = resolve_source(recipe.data.source, recipe.data.bad_row_share, fields_of(recipe.data.pairs))
    return Sources(text=text, base=base)

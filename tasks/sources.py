"""The user's own things, resolved once at the start of a flow run to digests that enter the stage keys."""

from __future__ import annotations

from typing import assert_never

from genai_core.config.base import Config
from genai_core.config.model import FolderBase, GgufBase, HubBase, ScratchBase
from genai_core.config.objectives import Distillation
from genai_core.config.recipe import Recipe
from genai_core.config.training import TrainingConfig
from genai_core.errors import ConfigError
from genai_core.storage.artifact import ArtifactRef
from tasks.session import current_session


class Sources(Config):
    """What comes from outside: the text, and the base model unless it is made from scratch."""

    text: ArtifactRef
    base: ArtifactRef | None = None


def resolve_sources(recipe: Recipe) -> Sources:
    """Return the digests of the recipe's text and base model. Raises DataError or ModelError before anything runs."""
    from genai_core.data.resolve import resolve_source
    from genai_core.models.resolve import check_base, resolve_base

    base = resolve_base(recipe.base)
    if base is not None:
        check_base(recipe.base, base, recipe.longest_sequence())
    for training in recipe.trainings().values():
        teacher_of(training)
    text = resolve_source(recipe.data.source, recipe.data.bad_row_share, pairs=recipe.data.pairs)
    return Sources(text=text, base=base)


def is_encoder(sources: Sources, recipe: Recipe) -> bool:
    """Return whether the base model is an encoder, which learns in pre-training alone."""
    from genai_core.models.resolve import is_encoder_base

    return is_encoder_base(recipe.base, sources.base)


def why_no_writer(sources: Sources, recipe: Recipe) -> str:
    """Return why the base model cannot write text, which all stages after pre-training ask for; '' if it can."""
    if not is_encoder(sources, recipe):
        return ""
    match recipe.base:
        case ScratchBase(architecture=architecture):
            named = f"base.architecture={architecture!r}"
        case HubBase(repo=repo):
            named = f"base.repo={repo!r}"
        case FolderBase(path=path) | GgufBase(path=path):
            named = f"base.path={path!r}"
        case _:
            assert_never(recipe.base)
    return f"{named} is an encoder: it cannot write text"


def resolve_writer(recipe: Recipe) -> Sources:
    """Return the recipe's sources. Raises ConfigError before anything runs if its base model cannot write text."""
    sources = resolve_sources(recipe)
    if reason := why_no_writer(sources, recipe):
        raise ConfigError(
            f"{reason}, as fine-tuning and all stages after it ask. Run the whole mission, which ends with an encoder's "
            "pre-training, or the flow 'pretraining'; or use a decoder, such as base.architecture='llama'."
        )
    return sources


def teacher_of(training: TrainingConfig) -> dict[str, ArtifactRef]:
    """Return the stage input `teacher` of a training, if its objective has one; the same all through a run.

    Raises:
        ModelError: it is not there, or cannot be trained from.
    """
    if not isinstance(training.objective, Distillation):
        return {}
    from genai_core.models.resolve import check_base, resolve_base

    teacher, known = training.objective.teacher, current_session().teachers
    name = teacher.model_dump_json()
    if name not in known:
        ref = resolve_base(teacher)
        assert ref is not None, "only a base from scratch has no reference"
        check_base(teacher, ref, training.seq_len)
        known[name] = ref
    return {"teacher": known[name]}

"""The flows by name: what the command line can run, plan and name in an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from genai_core.config.load import nearest
from genai_core.config.recipe import Recipe
from genai_core.errors import ConfigError

Walk = Callable[[Recipe], Any]

WALKS: Mapping[str, str] = {
    "lifecycle": "live",
    "augmentation": "walk",
    "pretraining": "walk",
    "finetuning": "walk",
    "recursion": "walk",
    "correction": "walk",
    "evaluation": "walk",
    "erasure": "scrub",
    "comparison": "write_with_both",
}
"""Flow (a module of the same name) -> the function that goes through its stages, computed or planned."""


def check_flow(name: str) -> None:
    """Raise ConfigError if there is no flow of that name. Prefect is not imported: it reads its settings when it is."""
    if name not in WALKS:
        raise ConfigError(f"There is no flow {name!r}.{nearest(name, list(WALKS))} There are: {', '.join(WALKS)}.")


def find_flow(name: str) -> tuple[Callable[..., Any], Walk]:
    """Return a flow, called with a recipe and the stages to refresh, and its walk.

    Raises:
        ConfigError: there is none of that name.
    """
    check_flow(name)
    module = import_module(f"flows.{name}")
    return getattr(module, name), getattr(module, WALKS[name])

"""The licence that a base model states itself: a folder on its model card, a GGUF file among its fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read_licence(place: str) -> str:
    """Return what the folder or GGUF file at a place says of its licence, '' if it says nothing or is not there."""
    path = Path(place)
    if path.suffix == ".gguf" and path.is_file():
        return _of_gguf(path)
    card = path / "README.md"
    return _of_card(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else ""


def _of_gguf(path: Path) -> str:
    from gguf import GGUFReader

    try:
        found = GGUFReader(path).fields.get("general.license")
    except (ValueError, IndexError, OSError):
        return ""
    return "" if found is None else str(found.contents())


def _of_card(text: str) -> str:
    if not text.startswith("---\n"):
        return ""
    try:
        head: Any = yaml.safe_load(text.split("---\n", 2)[1])
    except yaml.YAMLError:
        return ""
    if not isinstance(head, dict):
        return ""
    # 'other' says that the words stand elsewhere
    text = str(head.get("license_name") if head.get("license") == "other" else head.get("license") or "")
    return "" if text == "None" else text

"""Conversations as people store them: a list of {role, content} messages, or of {from, value} as ShareGPT writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SPEAKERS = {"human": "user", "gpt": "assistant"}  # ShareGPT's words


def read_turns(messages: Any) -> list[tuple[str, str]] | None:
    """Return the (role, content) turns with content; None if this is not a list of messages."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        return None
    turns = []
    for message in messages:
        role = message.get("role", message.get("from")) if isinstance(message, Mapping) else None
        if not isinstance(role, str):
            return None
        content = message.get("content", message.get("value"))
        if isinstance(content, (str, int, float)) and str(content).strip():
            turns.append((SPEAKERS.get(role, role), str(content).strip()))
    return turns

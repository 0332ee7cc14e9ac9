"""A request as the model reads it, and whether it leaves room for an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genai_core.config.generation import SamplingConfig
from genai_core.data.templates import render_prompt
from genai_core.data.tokenizer import document_end_id, encode_documents, load_tokenizer
from genai_core.errors import ModelError
from genai_core.generation.types import Request


def encode_request(tokenizer: Any, request: Request) -> list[int]:
    """Return the ids of a request: under the chat template, or as the beginning of a document if it is raw."""
    if request.raw:
        return [document_end_id(tokenizer), *next(encode_documents(tokenizer, [request.prompt]))]
    return render_prompt(tokenizer, request.prompt, request.draft, request.remark, request.turns)


def longest_row(config: Any) -> int | None:
    """Return the tokens of prompt and answer that a model holds, from its transformers config; None: no limit is known."""
    longest: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return longest


def open_ruler(path: Path) -> Callable[[Request], bool]:
    """Return what says whether a request leaves room for at least one token of the model in this folder."""
    from transformers import AutoConfig

    tokenizer = load_tokenizer(path)
    longest = longest_row(AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False))
    return lambda request: longest is None or len(encode_request(tokenizer, request)) < longest


def room_for_answer(config: Any, request: Request, ids: Sequence[int], sampling: SamplingConfig) -> int:
    """Return the most tokens that an answer may have: what was asked for, or what the model holds behind the prompt.

    Args:
        config: of the model.
        request: named where there is no room.
        ids: of its prompt.
        sampling: `max_new_tokens`.

    Raises:
        ModelError: there is no room for a single token.
    """
    longest = longest_row(config)
    room = sampling.max_new_tokens if longest is None else min(sampling.max_new_tokens, longest - len(ids))
    if room < 1:
        raise ModelError(
            f"The prompt of row {request.row_id!r} has {len(ids)} tokens and the model holds {longest}: no room for "
            "an answer. Shorten the prompt or use a model with a longer context."
        )
    return room

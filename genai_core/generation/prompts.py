"""A request as the model reads it, and whether it leaves room for an answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from genai_core.data.templates import render_prompt
from genai_core.data.tokenizer import document_end_id, encode_documents, load_tokenizer
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
    longest = longest_row(AutoConfig.from_pretrained(str(path), local_files_only=True))
    return lambda request: longest is None or len(encode_request(tokenizer, request)) < longest

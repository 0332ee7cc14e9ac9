"""Instruction pairs that the user's own rows hold: two fields, or a conversation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from genai_core.augmentation.sentences import collapse_spaces
from genai_core.config.data import ConversationPairs, FieldPairs
from genai_core.data.conversations import read_turns
from genai_core.data.documents import Document, Pair
from genai_core.data.sources.tables import find_field
from genai_core.errors import DataError

WORD = re.compile(r"\S+")


def field_pairs(documents: Sequence[Document], config: FieldPairs) -> list[Pair]:
    """Return one pair for each document whose prompt and answer fields are filled, in document order.

    Raises:
        DataError: no document gives a pair; says how many lacked which field, and which fields there are.
    """
    pairs: list[Pair] = []
    lacking: Counter[str] = Counter()
    for document in documents:
        fields = _fields(document)
        prompt, answer = (_text(find_field(fields, name)[0]) for name in (config.prompt_field, config.completion_field))
        context = _text(find_field(fields, config.context_field)[0]) if config.context_field else ""
        if not prompt:
            lacking[f"no {config.prompt_field!r}"] += 1
        elif not answer:
            lacking[f"no {config.completion_field!r}"] += 1
        else:
            _append(pairs, lacking, document, _write_prompt(prompt, context, config), answer)
    if not pairs:
        raise DataError(
            f"none of the {len(documents):,} rows gives an instruction pair ({_counts(lacking)}). The rows have the fields "
            f"{_known_fields(documents)}. Set pairs.prompt_field and pairs.completion_field to two of them."
        )
    return pairs


def conversation_pairs(documents: Sequence[Document], config: ConversationPairs) -> list[Pair]:
    """Return one pair for each conversation that has an assistant's turn after a user's, in document order.

    The answer is the last turn of the assistant. A single user turn before it is the prompt as it stands; of a longer
    conversation the prompt is a transcript, "role: content" a turn, blank lines between.

    Raises:
        DataError: no document gives a pair, with counts.
    """
    pairs: list[Pair] = []
    lacking: Counter[str] = Counter()
    for document in documents:
        turns = read_turns(find_field(_fields(document), config.messages_field)[0])
        if turns is None:
            lacking[f"no list of {{role, content}} in {config.messages_field!r}"] += 1
            continue
        last = max((at for at, (role, _) in enumerate(turns) if role == "assistant"), default=0)
        before = turns[:last]
        if not any(role == "user" for role, _ in before):
            lacking["no assistant turn after a user's"] += 1
            continue
        single = len(before) == 1
        prompt = before[0][1] if single else "\n\n".join(f"{role}: {content}" for role, content in before)
        _append(pairs, lacking, document, prompt, turns[last][1])
    if not pairs:
        raise DataError(
            f"none of the {len(documents):,} rows gives an instruction pair ({_counts(lacking)}). The rows have the fields "
            f"{_known_fields(documents)}. Set pairs.messages_field to a list of {{'role', 'content'}} (or {{'from', 'value'}}) objects."
        )
    return pairs


def _write_prompt(prompt: str, context: str, config: FieldPairs) -> str:
    shown = f"{prompt}\n\n{context}" if context else prompt
    if config.prompt_words:
        words = list(islice(WORD.finditer(shown), config.prompt_words))
        shown = shown[: words[-1].end()]
    return f"{shown}\n\n{config.instruction}" if config.instruction else shown


def _append(pairs: list[Pair], lacking: Counter[str], document: Document, prompt: str, answer: str) -> None:
    """Append the pair, unless the answer only repeats the prompt: nothing is learned from it, no verifier accepts it."""
    if collapse_spaces(answer).casefold() == collapse_spaces(prompt).casefold():
        lacking["the answer repeats the prompt"] += 1
        return
    pairs.append(
        Pair(
            pair_id=f"answer:{document.doc_id}",
            task="answer",
            group=document.group,
            doc_id=document.doc_id,
            prompt=prompt,
            completion=answer,
            check={"kind": "match", "gold": answer},
        )
    )


def _fields(document: Document) -> Mapping[str, Any]:
    fields = document.meta.get("fields")
    return fields if isinstance(fields, Mapping) else {}


def _text(value: Any) -> str:
    """Return a field as text: numbers and truth values as they print, lists and objects not at all."""
    return str(value).strip() if isinstance(value, (str, int, float)) else ""


def _counts(lacking: Counter[str]) -> str:
    return "; ".join(f"{number:,} rows: {reason}" for reason, number in sorted(lacking.items())) or "no rows"


def _known_fields(documents: Sequence[Document]) -> str:
    names = sorted({str(name) for document in documents[:100] for name in _fields(document)})
    return ", ".join(repr(name) for name in names) or "(none)"

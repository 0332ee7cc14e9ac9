"""Does a row hold what instruction pairs are built of: told by row and field before a stage runs.

A row that leaves a field out, or holds nothing in it, only gives no pair: people leave out what is empty. A row that holds
something of another form there (a list for an answer, a text for a conversation) does not fit, and is counted like one that
cannot be read: few of many are left out and told, more are an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genai_core.config.data import ConversationPairs, FieldPairs, Pairs, SymbolPairs
from genai_core.data.conversations import read_turns
from genai_core.data.documents import Document
from genai_core.data.sources.result import ReadResult, RowLedger
from genai_core.data.sources.tables import find_field, kind_of, say_inner_fields

MESSAGES = "a list of {role, content} (or {from, value}) messages"


def fields_of(pairs: Pairs) -> tuple[str, ...]:
    """Return the fields that building these pairs reads."""
    match pairs:
        case FieldPairs():
            return pairs.prompt_field, pairs.completion_field, *([pairs.context_field] if pairs.context_field else [])
        case ConversationPairs():
            return (pairs.messages_field,)
        case SymbolPairs():
            return pairs.text_field, pairs.label_field, *([pairs.dataset_field] if pairs.dataset_field else [])
        case _:
            return ()


def check_rows(
    documents: Sequence[Document], texts: Sequence[str], messages: Sequence[str], bad_row_share: float
) -> ReadResult:
    """Return the documents, and how many of their rows do not fit, with the first five.

    Args:
        documents: rows of a table, their ids 'file:line'.
        texts: fields that hold text or a number, where anything.
        messages: fields that hold a conversation, where anything.
        bad_row_share: rows up to this share, of at least 100, may not fit.

    Raises:
        DataError: more do not; names the first by file, row and field, and what to do.
    """
    ledger = RowLedger(bad_row_share)
    for document in documents:
        fields = document.meta.get("fields")
        reason = _fault(fields, texts, messages) if isinstance(fields, Mapping) else ""
        if reason:
            place, _, line = document.doc_id.rpartition(":")
            ledger.skip(place, int(line) if line.isdecimal() else 0, reason)
        else:
            ledger.good()
    wanted = [f"text or a number in {', '.join(map(repr, texts))}"] if texts else []
    wanted += [f"{MESSAGES} in {', '.join(map(repr, messages))}"] if messages else []
    return ledger.judge(list(documents), "; ".join(wanted))


def check_pair_rows(documents: Sequence[Document], pairs: Pairs, bad_row_share: float) -> ReadResult:
    """Return what `check_rows` does for the fields that these pairs are built of."""
    named = fields_of(pairs)
    told = isinstance(pairs, ConversationPairs)
    return check_rows(documents, () if told else named, named if told else (), bad_row_share)


def _fault(fields: Mapping[str, Any], texts: Sequence[str], messages: Sequence[str]) -> str:
    """Return what is wrong with a row, '' if nothing."""
    for name in texts:
        value, _ = find_field(fields, name)
        if isinstance(value, (Mapping, list, tuple)) and value:
            inner = say_inner_fields(name, value)
            return f"field {name!r} holds {kind_of(value)}, expected text or a number{f'; {inner}' if inner else ''}"
    for name in messages:
        value, _ = find_field(fields, name)
        if value and read_turns(value) is None:
            found = "a list of something else" if isinstance(value, (list, tuple)) else kind_of(value)
            return f"field {name!r} holds {found}, expected {MESSAGES}"
    return ""

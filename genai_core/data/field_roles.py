"""What the fields of a table are good for: a prompt, an answer, a label, a conversation, plain text.

Names say it where they are the usual ones; else what the fields hold does. A proposal to be looked at, not a rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from genai_core.data.conversations import read_turns
from genai_core.data.sources.tables import find_field

PROMPTS = ("instruction", "prompt", "question", "query", "user", "human", "problem", "task", "request")
ANSWERS = (
    "output",
    "response",
    "completion",
    "answer",
    "chosen",
    "assistant",
    "reply",
    "solution",
    "api_call",
    "summary",
    "translation",
    "code",
)
NESTED_ANSWERS = ("answers.0.text", "answers.text.0", "answers.0")  # SQuAD and its relatives
CONTEXTS = ("input", "context", "passage", "background", "evidence")
LABELS = ("label", "class", "category", "sentiment", "intent", "topic", "rating", "stars", "polarity", "tag")
TEXTS = ("text", "content", "body", "article", "document", "review", "abstract", "story", "description", "code", "doc")
MESSAGES = ("messages", "conversations", "conversation", "dialogue", "chat")

ROWS = 2000
MOST_LABELS = 30
LABEL_CHARS = 40
ROWS_A_LABEL = 5
SHARED_CHARS = 100  # a shorter context that several rows share ("N/A", a name) gives nothing away
FILLED = 0.5


@dataclass(frozen=True, slots=True)
class FieldFacts:
    """One field over the rows that were looked at."""

    name: str
    filled: float
    """Share of rows in which it holds text or a number."""

    chars: float
    """Mean length where it is filled."""

    distinct: int
    values: tuple[str, ...]
    """Its values, sorted, where they are few."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Which field is what; '' = none. `labels` are the answers where they are one of a few."""

    text: str | tuple[str, ...]
    prompt: str = ""
    answer: str = ""
    context: str = ""
    messages: str = ""
    labels: tuple[str, ...] = ()
    group: str = ""


def look_at_fields(rows: Sequence[Mapping[str, Any]]) -> dict[str, FieldFacts]:
    """Return the facts of every field that holds text or numbers, reached into objects and first list entries."""
    names = dict.fromkeys(name for row in rows[:100] for name in _paths(row))
    facts = {}
    for name in names:
        values = [
            str(value).strip() for row in rows if isinstance(value := find_field(row, name)[0], (str, int, float))
        ]
        values = [value for value in values if value]
        if values:
            distinct = sorted(set(values))
            few = tuple(distinct) if len(distinct) <= MOST_LABELS else ()
            facts[name] = FieldFacts(name, len(values) / len(rows), fmean(map(len, values)), len(distinct), few)
    return facts


def _paths(value: Any, prefix: str = "", depth: int = 3) -> list[str]:
    if depth and isinstance(value, Mapping):
        return [path for name, item in value.items() for path in _paths(item, f"{prefix}{name}.", depth - 1)]
    if depth and isinstance(value, list):
        return _paths(value[0], f"{prefix}0.", depth - 1) if value else []
    return [prefix[:-1]] if prefix else []


def find_roles(rows: Sequence[Mapping[str, Any]]) -> Roles | None:
    """Return the roles of the fields, or None if none holds text."""
    rows = [rows[index * len(rows) // ROWS] for index in range(ROWS)] if len(rows) > ROWS else rows  # often sorted
    facts = look_at_fields(rows)
    filled = {name: fact for name, fact in facts.items() if fact.filled >= FILLED}
    messages = next((name for name in MESSAGES if _is_conversation(rows, name)), "")
    if messages:
        return Roles(text=messages, messages=messages)
    if not filled:
        return None
    prompt, answer = _named(filled, PROMPTS), _named(filled, ANSWERS)
    answer = answer or next((name for name in NESTED_ANSWERS if name in filled), "")
    if prompt and answer:
        beside = {name.rpartition(".")[0] for name in (prompt, answer)}
        context = _named({name: fact for name, fact in facts.items() if name.rpartition(".")[0] in beside}, CONTEXTS)
        context = "" if context in (prompt, answer) else context
        parts = [context, prompt, answer] if context and facts[context].chars > facts[prompt].chars else []
        text = tuple(parts or [name for name in (prompt, context, answer) if name])
        return Roles(
            text,
            prompt,
            answer,
            context,
            labels=_labels(facts[answer], len(rows)),
            group=_repeated(rows, facts, context),
        )
    text_field = _named(filled, TEXTS) or max(filled.values(), key=lambda fact: fact.chars * (fact.distinct > 1)).name
    if not prompt and answer and answer != text_field:  # such as description -> api_call, text -> code
        return Roles((text_field, answer), text_field, answer, labels=_labels(facts[answer], len(rows)))
    label = _named(filled, LABELS)
    if label and label != text_field and _is_label(facts[label], len(rows)):
        return Roles(text_field, text_field, label, labels=_labels(facts[label], len(rows)))
    return Roles(text_field)


def _named(facts: Mapping[str, FieldFacts], wanted: Sequence[str]) -> str:
    """Return the field of one of these names, the first name first; else one whose path ends in it."""
    for name in wanted:
        if found := next((field for field in facts if field.lower() == name), ""):
            return found
    return next((field for name in wanted for field in facts if field.rpartition(".")[2].lower() == name), "")


def _labels(fact: FieldFacts, rows: int) -> tuple[str, ...]:
    return fact.values if _is_label(fact, rows) else ()


def _is_label(fact: FieldFacts, rows: int) -> bool:
    return fact.distinct >= 2 and fact.distinct * ROWS_A_LABEL <= rows and fact.chars <= LABEL_CHARS


def _is_conversation(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    found = [row[name] for row in rows[:100] if name in row]
    return bool(found) and all(read_turns(messages) for messages in found)


def _repeated(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, FieldFacts], context: str) -> str:
    """Return the context field if several rows share one context: they must not stand on both sides of the split."""
    if not context or facts[context].filled < 1 or facts[context].chars < SHARED_CHARS:
        return ""
    return context if facts[context].distinct < 0.8 * len(rows) else ""

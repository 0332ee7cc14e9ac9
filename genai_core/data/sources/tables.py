"""What every kind of table shares: a row with named fields becomes a document."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genai_core.data.conversations import read_turns
from genai_core.data.documents import Document
from genai_core.errors import DataError


class BadRowError(ValueError):
    """A row that cannot be a document; the reader counts it."""


def row_document(row: Mapping[str, Any], doc_id: str, text_field: str | Sequence[str], group_field: str) -> Document:
    """Return the document of a row; all its fields are kept in meta for pairs built from fields.

    Raises BadRowError with what was expected and what was found.
    """
    text = row_text(row, text_field)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # a byte that could not be decoded was kept as a lone surrogate
        raise BadRowError(
            f"field {say_fields(text_field)} is not UTF-8 text; data.source.encoding names another encoding"
        ) from error
    group = doc_id
    if group_field:
        value = row_field(row, group_field)
        if value is None or isinstance(value, (dict, list)):
            raise BadRowError(f"field {group_field!r} holds {kind_of(value)}, expected a name or a number")
        group = str(value)
    title = row.get("title")
    return Document(
        doc_id=doc_id,
        group=group,
        title=title if isinstance(title, str) else "",
        text=text,
        meta={"fields": {str(name): json_value(value) for name, value in row.items()}},
    )


def row_text(row: Mapping[str, Any], text_field: str | Sequence[str]) -> str:
    """Return a row's text: of one field, or of several joined by blank lines, empty and null ones left out.

    A field that holds a conversation gives what is said in it.
    """
    if isinstance(text_field, str):
        text = row_field(row, text_field)
        turns = None if isinstance(text, str) else read_turns(text)
        if turns:
            return "\n\n".join(content for _, content in turns)
        if not isinstance(text, str):
            remedy = f"; {inner}" if (inner := say_inner_fields(text_field, text)) else ""
            raise BadRowError(f"field {text_field!r} holds {kind_of(text)}, expected a string{remedy}")
        return text
    if text_field and not any(find_field(row, name)[1] for name in text_field):
        raise BadRowError(missing_field(text_field[0], row))
    parts = []
    for name in text_field:
        value, _ = find_field(row, name)  # rows often leave out what is empty
        if isinstance(value, (dict, list)):
            remedy = f"; {inner}" if (inner := say_inner_fields(name, value)) else ""
            raise BadRowError(f"field {name!r} holds {kind_of(value)}, expected text or a number{remedy}")
        parts.append("" if value is None else str(value).strip())
    return "\n\n".join(part for part in parts if part)


def say_fields(text_field: str | Sequence[str]) -> str:
    """Return the name of a field, or the names of several, in quotes."""
    return repr(text_field) if isinstance(text_field, str) else ", ".join(map(repr, text_field))


def row_field(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field, or of a path such as instances.0.output into objects and lists.

    Raises BadRowError that names the nearest existing one.
    """
    if name in row:
        return row[name]
    found, there = find_field(row, name)
    if not there:
        raise BadRowError(missing_field(name, row))
    return found


def find_field(row: Mapping[str, Any], name: str) -> tuple[Any, bool]:
    """Return a field's value and whether it is there; a path such as instances.0.output reaches into it."""
    if name in row:
        return row[name], True
    value: Any = row
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, (list, tuple)) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None, False
    return value, True


def say_inner_fields(name: str, value: Any) -> str:
    """Return how to reach into an object or a list, '' for anything else."""
    if isinstance(value, Mapping) and value:
        return f"reach into it: {name}.{next(iter(value))}"
    if isinstance(value, (list, tuple)) and value:
        below = f".{next(iter(value[0]))}" if isinstance(value[0], Mapping) and value[0] else ""
        return f"reach into it: {name}.0{below}"
    return ""


def missing_field(name: str, there: Iterable[str]) -> str:
    """Return the words for a field that is not there: the nearest existing one, and all that exist."""
    names = [str(other) for other in there]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"no field {name!r}{hint} (there are: {', '.join(names[:12]) or 'none'})"


def require_column(name: str | Sequence[str], there: Iterable[str], place: str, setting: str) -> None:
    """Raise DataError if a table has not the column, or one of the columns; of a path the first part counts."""
    names = list(there)
    for each in (name,) if isinstance(name, str) else name:
        if each not in names and each.split(".")[0] not in names:
            raise DataError(f"{place}: {missing_field(each, names)}. Set {setting} to the column that holds it.")


def kind_of(value: Any) -> str:
    """Return a person's word for a JSON value's type."""
    if value is None:
        return "null"
    words = {bool: "true/false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return words.get(type(value), type(value).__name__)


def json_value(value: Any) -> Any:
    """Return the value as JSON can hold it: dates and bytes become text, NaN becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(name): json_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return str(value)

"""What every kind of table shares: a row with named fields becomes a document."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from genai_core.data.documents import Document
from genai_core.errors import DataError


class BadRowError(ValueError):
    """A row that cannot be a document; the reader counts it."""


def row_document(row: Mapping[str, Any], doc_id: str, text_field: str, group_field: str) -> Document:
    """Return the document of a row; all its fields are kept in meta for pairs built from fields.

    Raises BadRowError with what was expected and what was found.
    """
    text = row_field(row, text_field)
    if not isinstance(text, str):
        raise BadRowError(f"field {text_field!r} holds {kind_of(text)}, expected a string")
    if "\ud7ff" < max(text, default="") < "\ue000":
        raise BadRowError(f"field {text_field!r} is not UTF-8 text")
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


def row_field(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field. Raises BadRowError that names the nearest existing one."""
    if name not in row:
        raise BadRowError(missing_field(name, row))
    return row[name]


def missing_field(name: str, there: Iterable[str]) -> str:
    """Return the words for a field that is not there: the nearest existing one, and all that exist."""
    names = [str(other) for other in there]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"no field {name!r}{hint} (there are: {', '.join(names[:12]) or 'none'})"


def require_column(name: str, there: Iterable[str], place: str, setting: str) -> None:
    """Raise DataError if a table has no such column."""
    names = list(there)
    if name not in names:
        raise DataError(f"{place}: {missing_field(name, names)}. Set {setting} to the column that holds it.")


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

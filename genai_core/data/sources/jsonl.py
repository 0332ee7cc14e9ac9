"""JSON lines: one object a line; or one JSON list of objects, whose rows count from 1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genai_core.config.data import JsonlSource
from genai_core.data.documents import Document
from genai_core.data.sources.files import BOM, chunks, find_files, lines, packed_too, read_text, say_encoding
from genai_core.data.sources.result import ReadResult, RowLedger
from genai_core.data.sources.tables import BadRowError, kind_of, row_document, say_fields
from genai_core.errors import DataError

SUFFIXES = packed_too(".jsonl", ".ndjson")


def read(source: JsonlSource, place: Path | str, bad_row_share: float, limit: int | None = None) -> ReadResult:
    """Return one document a line; blank lines are nothing. Raises DataError for too many unreadable lines."""
    files = find_files(place, SUFFIXES)
    ledger = RowLedger(bad_row_share)
    documents: list[Document] = []
    for path in files.paths:
        name = files.relative(path)
        for number, row in _rows(path, source.encoding):
            if limit is not None and ledger.rows >= limit:
                break
            try:
                documents.append(_document(row, f"{name}:{number}", source))
                ledger.good()
            except BadRowError as error:
                ledger.skip(name, number, str(error))
    return ledger.judge(documents, f"one JSON object a line with a string in field {say_fields(source.text_field)}")


def _rows(path: Path, encoding: str) -> Iterator[tuple[int, Any]]:
    """Yield (number from 1, value) of each row; a BadRowError instead of a value that cannot be read."""
    if is_list(path):
        yield from enumerate(_read_list(path, encoding), start=1)
        return
    for number, line in lines(path):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line.decode(encoding))
        except UnicodeDecodeError as error:
            words = f"not {encoding.upper()}: byte 0x{line[error.start]:02x} at column {error.start + 1}"
            yield number, BadRowError(f"{words}. {say_encoding(line)}")
        except (json.JSONDecodeError, RecursionError) as error:
            yield number, BadRowError(f"not JSON: {error}")


def is_list(path: Path) -> bool:
    """Return whether a file is one JSON list, and not a list a line."""
    head = next(chunks(path, 1 << 16), b"").removeprefix(BOM)
    first = head.lstrip().split(b"\n", 1)[0].strip()
    return first.startswith(b"[") and not (first.endswith(b"]") and head.lstrip().count(b"\n"))


def _read_list(path: Path, encoding: str) -> list[Any]:
    try:
        rows = json.loads(read_text(path, encoding))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"{str(path)!r} begins as a JSON list, but is not one: {error}. Mend it, or write one object a line."
        ) from error
    return list(rows)


def _document(row: Any, doc_id: str, source: JsonlSource) -> Document:
    if isinstance(row, BadRowError):
        raise row
    if not isinstance(row, dict):
        raise BadRowError(f"{kind_of(row)}, expected an object")
    return row_document(row, doc_id, source.text_field, source.group_field)

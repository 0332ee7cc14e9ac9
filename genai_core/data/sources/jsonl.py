"""JSON lines: one object a line."""

from __future__ import annotations

import json
from pathlib import Path

from genai_core.config.data import JsonlSource
from genai_core.data.documents import Document
from genai_core.data.sources.files import find_files, lines
from genai_core.data.sources.result import ReadResult, RowLedger
from genai_core.data.sources.tables import BadRowError, kind_of, row_document

SUFFIXES = (".jsonl", ".jsonl.gz")


def read(source: JsonlSource, place: Path | str, bad_row_share: float, limit: int | None = None) -> ReadResult:
    """Return one document a line; blank lines are nothing. Raises DataError for too many unreadable lines."""
    files = find_files(place, SUFFIXES)
    ledger = RowLedger(bad_row_share)
    documents: list[Document] = []
    for path in files.paths:
        name = files.relative(path)
        for number, line in lines(path):
            if limit is not None and ledger.rows >= limit:
                break
            if not line.strip():
                continue
            try:
                documents.append(_document(line, f"{name}:{number}", source))
                ledger.good()
            except BadRowError as error:
                ledger.skip(name, number, str(error))
    return ledger.judge(documents, f"one JSON object a line with a string in field {source.text_field!r}")


def _document(line: bytes, doc_id: str, source: JsonlSource) -> Document:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadRowError(f"not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadRowError(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadRowError(f"{kind_of(row)}, expected an object")
    return row_document(row, doc_id, source.text_field, source.group_field)

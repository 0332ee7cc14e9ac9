"""CSV with a header line; a quoted field may span lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from genai_core.config.data import CsvSource
from genai_core.data.documents import Document
from genai_core.data.sources.files import find_files, lines, packed_too
from genai_core.data.sources.result import ReadResult, RowLedger
from genai_core.data.sources.tables import BadRowError, require_column, row_document, say_fields
from genai_core.errors import DataError

SUFFIXES = packed_too(".csv", ".tsv")
DELIMITERS = ",;\t|"
LONGEST_FIELD = 1 << 27  # the module's own limit of 128 KiB is shorter than an article


def read(source: CsvSource, place: Path | str, bad_row_share: float, limit: int | None = None) -> ReadResult:
    """Return one document a row. Raises DataError for a missing column or too many unreadable rows."""
    files = find_files(place, SUFFIXES)
    ledger = RowLedger(bad_row_share)
    documents: list[Document] = []
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        for path in files.paths:
            name = files.relative(path)
            rows = csv.reader(_text_lines(path, source.encoding), delimiter=source.delimiter)
            header = next(rows, None)
            if header is None:
                continue
            _check_header(header, source, name)
            number = rows.line_num + 1
            while limit is None or ledger.rows < limit:
                try:
                    cells = next(rows)
                    if cells:
                        documents.append(_document(header, cells, f"{name}:{number}", source))
                        ledger.good()
                except StopIteration:
                    break
                except (BadRowError, csv.Error) as error:
                    ledger.skip(name, number, str(error))
                number = rows.line_num + 1
    finally:
        csv.field_size_limit(before)
    return ledger.judge(documents, f"rows with the header's columns and text in column {say_fields(source.text_field)}")


def _text_lines(path: Path, encoding: str) -> Iterator[str]:
    # a byte that is not of the encoding becomes a lone surrogate, by which its row is recognised and counted
    return (line.decode(encoding, errors="surrogateescape") + "\n" for _, line in lines(path))


def _check_header(header: list[str], source: CsvSource, name: str) -> None:
    if len(header) == 1:
        for sign in DELIMITERS:
            if sign != source.delimiter and sign in header[0]:
                raise DataError(
                    f"{name}: the header is one column, {header[0][:80]!r}: its columns are parted by {sign!r}, not by "
                    f"{source.delimiter!r}. Set data.source.delimiter: {json.dumps(sign)}."
                )
    require_column(source.text_field, header, name, "data.source.text_field")
    if source.group_field:
        require_column(source.group_field, header, name, "data.source.group_field")
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise DataError(f"{name}: the header names {twice[0]!r} twice. Give every column its own name.")


def _document(header: list[str], cells: list[str], doc_id: str, source: CsvSource) -> Document:
    if len(cells) != len(header):
        raise BadRowError(f"{len(cells)} columns, expected {len(header)} as in the header")
    return row_document(dict(zip(header, cells, strict=True)), doc_id, source.text_field, source.group_field)

"""Parquet tables."""

from __future__ import annotations

from pathlib import Path

from genai_core.config.data import ParquetSource
from genai_core.data.documents import Document
from genai_core.data.sources.files import find_files
from genai_core.data.sources.result import ReadResult, RowLedger
from genai_core.data.sources.tables import BadRowError, require_column, row_document, say_fields
from genai_core.errors import DataError

SUFFIXES = (".parquet",)
BATCH_ROWS = 4096


def read(source: ParquetSource, place: Path | str, bad_row_share: float, limit: int | None = None) -> ReadResult:
    """Return one document a row; lines count rows from 1. Raises DataError for a missing column or a damaged file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = find_files(place, SUFFIXES)
    ledger = RowLedger(bad_row_share)
    documents: list[Document] = []
    for path in files.paths:
        name = files.relative(path)
        try:
            with pq.ParquetFile(path) as table:
                columns = table.schema_arrow.names
                require_column(source.text_field, columns, name, "data.source.text_field")
                if source.group_field:
                    require_column(source.group_field, columns, name, "data.source.group_field")
                number = 0
                for batch in table.iter_batches(BATCH_ROWS):
                    for row in batch.to_pylist():
                        if limit is not None and ledger.rows >= limit:
                            break
                        number += 1
                        try:
                            document = row_document(row, f"{name}:{number}", source.text_field, source.group_field)
                            documents.append(document)
                            ledger.good()
                        except BadRowError as error:
                            ledger.skip(name, number, str(error))
                    if limit is not None and ledger.rows >= limit:
                        break
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{str(path)!r} is not a readable Parquet file: {_one_line(error)}. Choose the source kind that "
                "fits it, such as csv or jsonl; or write it again."
            ) from error
    return ledger.judge(documents, f"text in column {say_fields(source.text_field)}")


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")[:300]

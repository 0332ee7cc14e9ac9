"""Which reader belongs to which source."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from genai_core.config.data import (
    CsvSource,
    DatasetsSource,
    JsonlSource,
    MarkdownSource,
    ParquetSource,
    PydocsSource,
    S3Source,
    Source,
    TextSource,
)
from genai_core.data import pydocs
from genai_core.data.sources import csv, datasets, jsonl, markdown, parquet, s3, text
from genai_core.data.sources.result import ReadResult


def in_passages(found: ReadResult, words: int) -> ReadResult:
    """Return the same texts in passages of about so many words; those of one row stay in its group."""
    documents = []
    for document in found.documents:
        pieces = list(text.passages(text.blocks(document.text), words))
        for index, piece in enumerate(pieces):
            doc_id = f"{document.doc_id}#{index}" if len(pieces) > 1 else document.doc_id
            documents.append(replace(document, doc_id=doc_id, text=piece))
    return replace(found, documents=documents)


def read_documents(
    source: Source, place: Path | str | None, bad_row_share: float, limit: int | None = None
) -> ReadResult:
    """Return the documents of a source, in a fixed order.

    Args:
        place: where the source lies now; None: where its own path says (pydocs: this interpreter).
        bad_row_share: unreadable rows up to this share, of at least 100, are skipped.
        limit: stop after so many rows or files; None = all.

    Raises:
        DataError: missing, empty, binary, a named field that is not there, too many unreadable rows.
    """
    words = getattr(source, "passage_words", 0)
    if words and not isinstance(source, TextSource):
        whole = source.model_copy(update={"passage_words": 0})
        return in_passages(read_documents(whole, place, bad_row_share, limit), words)
    match source:
        case PydocsSource():
            return pydocs.read(source)
        case TextSource():
            return text.read(source, place or source.path, limit)
        case MarkdownSource():
            return markdown.read(source, place or source.path, limit)
        case JsonlSource():
            return jsonl.read(source, place or source.path, bad_row_share, limit)
        case CsvSource():
            return csv.read(source, place or source.path, bad_row_share, limit)
        case ParquetSource():
            return parquet.read(source, place or source.path, bad_row_share, limit)
        case DatasetsSource():
            return datasets.read(source, place or source.path, bad_row_share, limit)
        case S3Source():
            with tempfile.TemporaryDirectory(prefix="genai-s3-") as folder:
                plain = s3.fetch(source, str(place or source.path), Path(folder) / "objects")
                return read_documents(plain, None, bad_row_share, limit)
        case _:
            assert_never(source)

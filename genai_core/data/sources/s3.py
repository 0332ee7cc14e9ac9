"""Objects below an S3 prefix: fetched through storage, then read as files of their format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_never

from genai_core.config.data import (
    CsvSource,
    JsonlSource,
    MarkdownSource,
    ParquetSource,
    S3Source,
    TextSource,
)

FileSource = TextSource | MarkdownSource | JsonlSource | CsvSource | ParquetSource


def fetch(source: S3Source, uri: str, target: Path, digest: str = "") -> FileSource:
    """Return the source of the fetched files, which then lie in the folder `target`. Raises DataError or StorageError.

    Args:
        target: a folder that is not there yet, or is there because it was fetched whole before.
        digest: what the objects had when they were resolved; '' = whatever is there now.
    """
    from genai_core.config.settings import read_settings
    from genai_core.storage.s3 import fetch_prefix

    return as_files(source, fetch_prefix(uri, target, read_settings(), digest=digest))


def as_files(source: S3Source, folder: Path) -> FileSource:
    """Return the source that reads the same objects as files of a folder."""
    fields: dict[str, Any] = {
        "path": str(folder),
        "text_field": source.text_field,
        "group_field": source.group_field,
        "passage_words": source.passage_words,
    }
    match source.format:
        case "text":
            return TextSource(path=str(folder))
        case "markdown":
            return MarkdownSource(path=str(folder))
        case "jsonl":
            return JsonlSource(**fields)
        case "csv":
            return CsvSource(**fields)
        case "parquet":
            return ParquetSource(**fields)
        case _:
            assert_never(source.format)

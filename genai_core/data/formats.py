"""What a path holds, found by looking: the source that reads it, with encoding, delimiter and what a document is.

notes/           -> markdown, where most bytes of text end in .md
table.csv        -> csv, delimiter ';', encoding cp1252
book.txt.gz      -> text, a document a passage: one file is one document otherwise, and nothing can be held out
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from genai_core.config.data import CsvSource, DatasetsSource, JsonlSource, MarkdownSource, ParquetSource, TextSource
from genai_core.data.resolve import SUFFIXES
from genai_core.data.sources import csv
from genai_core.data.sources.files import BOM, FORMATS, MAGIC, UTF8, chunks, find_files, open_binary, refuse_binary
from genai_core.data.split import LEAST_GROUPS
from genai_core.errors import DataError

LocalSource = TextSource | MarkdownSource | JsonlSource | CsvSource | ParquetSource | DatasetsSource

HEAD_BYTES = 1 << 20
HEADER_LINES = 20
WINDOWS = "cp1252"
LONG_FILE_BYTES = 20_000  # about twelve pages: a file this long holds more than one subject, whatever it is about


@dataclass(frozen=True, slots=True)
class Found:
    """The source of a path, and why: one sentence a decision."""

    source: LocalSource
    reasons: tuple[str, ...]


def find_format(place: str) -> Found:
    """Return the source that reads a file, a folder or a pattern.

    Raises:
        DataError: nothing is there, it is a format that no source reads, or the files hold nothing.
    """
    if "://" in place:
        raise DataError(
            f"{place!r} is not on this machine, and only what is can be looked at. Copy deployments/recipes/own-data.yaml "
            "and choose source kind s3 or datasets in it."
        )
    path = Path(place).expanduser()
    if path.is_dir() and any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return Found(DatasetsSource(path=place), ("written by the datasets library (save_to_disk)",))
    if path.is_dir():
        kind, reason = _kind_of_folder(path)
    else:
        files = find_files(place, ())
        kind, reason = _kind_of_file(files.paths[0])
        if any(sign in place for sign in MAGIC):
            reason = f"{len(files.paths):,} files match; the first: {reason}"
    return _source_of(kind, place, reason)


def _kind_of_folder(folder: Path) -> tuple[str, str]:
    """Return the kind that most bytes of the folder are of, and what else lies there."""
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        kind = kind_of_name(path.name)
        if kind:
            sizes[kind] += path.stat().st_size
            counts[kind] += 1
        else:
            others[path.suffix or "(no ending)"] += 1
    if not counts:
        there = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(5)) or "nothing"
        known = ", ".join(f"*{suffix}" for suffixes in SUFFIXES.values() for suffix in suffixes[:1])
        raise DataError(
            f"The folder {str(folder)!r} holds no text that can be read: it holds {there}. Known are {known} (text also "
            "packed: .gz, .bz2, .xz). Export the text as one of these, or name a single file."
        )
    kind = max(sorted(counts), key=lambda name: (sizes[name], counts[name]))
    left = [f"{count:,} {name}" for name, count in counts.items() if name != kind]
    left += [f"{count:,} {suffix}" for suffix, count in others.most_common(3)]
    return kind, f"{counts[kind]:,} files in the folder" + (f" (left out: {', '.join(left)})" if left else "")


def kind_of_name(name: str) -> str:
    """Return the kind of source that reads a file of this name, '' for none."""
    lower = name.lower()
    return next((kind for kind, suffixes in SUFFIXES.items() if lower.endswith(suffixes)), "")


def _kind_of_file(path: Path) -> tuple[str, str]:
    kind = kind_of_name(path.name)
    if kind:
        return kind, "by its name"
    with open_binary(path) as handle:
        first = handle.read(16)
    if first.startswith(b"PAR1"):
        return "parquet", "by its first bytes"
    if any(first.startswith(magic) for magic in FORMATS):
        refuse_binary(path, first)
    head = _head(path)
    refuse_binary(path, head)
    start = head.removeprefix(BOM).lstrip()
    if start[:1] in (b"{", b"["):
        line = start.split(b"\n", 1)[0]
        try:
            json.loads(line)
        except (ValueError, RecursionError):  # the second: thousands of brackets
            if start[:1] == b"{":
                raise DataError(
                    f"{str(path)!r} is JSON, but not an object a line and not a list of objects. Write one of the two: "
                    "`jq -c '.rows[]' FILE > rows.jsonl`, with the name of your list."
                ) from None
        return "jsonl", "by its content: JSON"
    if b"</" in head[:5000] and start[:1] == b"<":
        raise DataError(f"{str(path)!r} is HTML or XML. Turn it into text first, for example with `pandoc -t plain`.")
    if find_delimiter(start.decode(UTF8, errors="replace")):
        return "csv", "by its content: a table"
    return "text", "by its content"


def _source_of(kind: str, place: str, reason: str) -> Found:
    files = find_files(place, SUFFIXES[kind])
    first = max(files.paths, key=lambda path: path.stat().st_size)
    if kind == "parquet":
        return Found(ParquetSource(path=place), (reason,))
    head = _head(first)
    refuse_binary(first, head)
    encoding, reasons = find_encoding(head), [reason]
    if encoding != UTF8:
        reasons.append(f"{first.name} is not UTF-8; read as {encoding}, the usual one of Windows: look at the accents")
    match kind:
        case "markdown":
            return Found(MarkdownSource(path=place, encoding=encoding), (*reasons, "each section is a document"))
        case "jsonl":
            return Found(JsonlSource(path=place, encoding=encoding), tuple(reasons))
        case "csv":
            delimiter = find_delimiter(head.removeprefix(BOM).decode(encoding, errors="replace")) or ","
            if delimiter != ",":
                reasons.append(f"columns are parted by {delimiter!r}")
            return Found(CsvSource(path=place, encoding=encoding, delimiter=delimiter), tuple(reasons))
        case _:
            document, why = _document_of([path.stat().st_size for path in files.paths])
            return Found(TextSource(path=place, document=document, encoding=encoding), (*reasons, why))


def _document_of(sizes: list[int]) -> tuple[Literal["file", "passage"], str]:
    """Return what a document of text files is, and why."""
    if len(sizes) < 2 * LEAST_GROUPS:
        what = "one file is" if len(sizes) == 1 else f"{len(sizes)} files are"
        return "passage", f"{what} too few to hold any out: each passage is a document"
    if sorted(sizes)[len(sizes) // 2] > LONG_FILE_BYTES:
        return "passage", "the files are long: each passage is a document"
    return "file", "each file is a document"


def find_encoding(head: bytes) -> str:
    """Return 'utf-8' if the bytes are that, else the usual encoding of Windows, which can read nearly anything."""
    try:
        head.decode(UTF8)
    except UnicodeDecodeError as error:
        # the head may end within a character
        return UTF8 if error.start >= len(head) - 3 and len(head) >= HEAD_BYTES else WINDOWS
    return UTF8


def find_delimiter(head: str) -> str:
    """Return the sign that parts the header into columns, '' if there is none in every one of the first lines."""
    lines = [line for line in head.splitlines()[:HEADER_LINES] if line.strip()]
    if len(lines) < 2:
        return ""
    counts = {sign: lines[0].count(sign) for sign in csv.DELIMITERS}
    best = max(csv.DELIMITERS, key=lambda sign: counts[sign])
    return best if counts[best] and (best != "," or _is_header(lines[0])) else ""


def _is_header(line: str) -> bool:
    """Return whether a line of commas looks like column names, not like prose."""
    return all(len(name.split()) <= 3 and len(name) <= 40 for name in line.split(",")) and not line.endswith(".")


def _head(path: Path) -> bytes:
    return next(chunks(path, HEAD_BYTES), b"")


def with_fields(source: LocalSource, **fields: object) -> LocalSource:
    """Return the source of a table with the given fields set."""
    return source.model_copy(update=fields)

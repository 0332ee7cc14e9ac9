"""Plain text: a file is a document, or each block between blank lines is."""

from __future__ import annotations

import re
from pathlib import Path

from genai_core.config.data import TextSource
from genai_core.data.documents import Document
from genai_core.data.sources.files import find_files, read_text
from genai_core.data.sources.result import ReadResult

SUFFIXES = (".txt", ".txt.gz")
BLOCK = re.compile(r"\S.*?(?=\n[ \t]*\n|\Z)", re.DOTALL)
PARAGRAPHS_IN_GROUP = 8  # neighbours tell one story: they stay on one side of the split


def read(source: TextSource, place: Path | str, limit: int | None = None) -> ReadResult:
    """Return one document a file, or one a paragraph. Raises DataError for anything that is not UTF-8 text."""
    files = find_files(place, SUFFIXES)
    documents: list[Document] = []
    paths = files.paths if limit is None else files.paths[:limit]
    for path in paths:
        name = files.relative(path)
        text = read_text(path)
        title = path.name.removesuffix(".gz").removesuffix(".txt")
        if source.document == "file":
            documents.append(Document(doc_id=name, group=name, title=title, text=text))
            continue
        text = text.replace("\r\n", "\n")
        for index, match in enumerate(BLOCK.finditer(text)):
            group = f"{name}#{index // PARAGRAPHS_IN_GROUP}"
            documents.append(Document(doc_id=f"{name}#{index}", group=group, title=title, text=match.group()))
    return ReadResult(documents, len(paths))

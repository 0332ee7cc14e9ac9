"""Plain text: a document is a file, a block between blank lines, or a passage of neighbouring blocks.

A block that is longer than a passage (a file without blank lines, or of one giant line) is cut after a
sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from genai_core.config.data import TextSource
from genai_core.data.documents import Document
from genai_core.data.sources.files import find_files, packed_too, read_text
from genai_core.data.sources.result import ReadResult

SUFFIXES = packed_too(".txt")
BLOCK = re.compile(r"\S.*?(?=\n[ \t]*\n|\Z)", re.DOTALL)
SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*\s+|[。！？।]")
SPACE = re.compile(r"\s+")
USUAL_WORD_CHARS = 6  # of English, its space included; counted instead of words, which not every script parts
PARAGRAPHS_IN_GROUP = 8  # neighbours tell one story: they stay on one side of the split


def read(source: TextSource, place: Path | str, limit: int | None = None) -> ReadResult:
    """Return one document a file, a paragraph or a passage. Raises DataError for what is not text of the encoding."""
    files = find_files(place, SUFFIXES)
    documents: list[Document] = []
    paths = files.paths if limit is None else files.paths[:limit]
    for path in paths:
        name = files.relative(path)
        text = read_text(path, source.encoding)
        title = path.name.split(".txt")[0]
        if source.document == "file":
            documents.append(Document(doc_id=name, group=name, title=title, text=text))
            continue
        if source.document == "passage":
            for index, passage in enumerate(passages(blocks(text), source.passage_words)):
                doc_id = f"{name}#{index}"
                documents.append(Document(doc_id=doc_id, group=doc_id, title=title, text=passage))
            continue
        for index, block in enumerate(blocks(text)):
            group = f"{name}#{index // PARAGRAPHS_IN_GROUP}"
            documents.append(Document(doc_id=f"{name}#{index}", group=group, title=title, text=block))
    return ReadResult(documents, len(paths))


def blocks(text: str) -> Iterator[str]:
    """Yield what stands between blank lines."""
    return (match.group() for match in BLOCK.finditer(text.replace("\r\n", "\n")))


def passages(blocks: Iterable[str], words: int) -> Iterator[str]:
    """Yield runs of neighbouring blocks of at least `words` words and less than three times as many."""
    wanted = words * USUAL_WORD_CHARS
    held: list[str] = []
    length = 0
    for block in blocks:
        for piece in cut(block, wanted):
            held.append(piece)
            length += len(piece)
            if length >= wanted:
                yield "\n\n".join(held)
                held, length = [], 0
    if held:
        yield "\n\n".join(held)


def cut(block: str, size: int) -> Iterator[str]:
    """Yield a block in pieces of `size` to twice as many characters: cut after a sentence, else at white space."""
    start = 0
    while len(block) - start > 2 * size:
        near = (start + size, start + 2 * size)
        found = SENTENCE_END.search(block, *near) or SPACE.search(block, *near)
        end = found.end() if found else near[0]
        yield block[start:end].rstrip()
        start = end
    yield block[start:].rstrip()

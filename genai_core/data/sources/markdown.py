"""Markdown: each section below a heading is a document; links between files and sections are kept.

docs/start.md: "# Start\\n...\\n## Install\\nsee [usage](use.md#options)"
    -> "docs/start.md#start", "docs/start.md#install" with links ("docs/use.md#options",)
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace
from pathlib import Path

from genai_core.config.data import MarkdownSource
from genai_core.data.documents import Document
from genai_core.data.sources.files import find_files, packed_too, read_text
from genai_core.data.sources.result import ReadResult

SUFFIXES = packed_too(".md", ".markdown")
HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
HYPERLINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(\s*<?([^)\s>]+)>?[^)\n]*\)")


def read(source: MarkdownSource, place: Path | str, limit: int | None = None) -> ReadResult:
    """Return one document a section, in the order of the files. Raises DataError for what is not UTF-8 text."""
    files = find_files(place, SUFFIXES)
    paths = files.paths if limit is None else files.paths[:limit]
    documents: list[Document] = []
    first_of: dict[str, str] = {}
    for path in paths:
        name = files.relative(path)
        for index, (slug, title, text) in enumerate(sections(read_text(path, source.encoding))):
            doc_id = f"{name}#{slug}" if slug else name
            if index == 0:
                first_of[name] = doc_id
            documents.append(Document(doc_id=doc_id, group=name, title=title, text=text))
    known = {document.doc_id for document in documents}
    return ReadResult([_linked(document, known, first_of) for document in documents], len(paths))


def sections(text: str) -> list[tuple[str, str, str]]:
    """Return (anchor, title, text) of each section with words in it; text before the first heading has no anchor."""
    found: list[tuple[str, str, list[str]]] = [("", "", [])]
    used: dict[str, int] = {}
    fence = ""
    for line in text.splitlines():
        mark = FENCE.match(line)
        if mark and (not fence or mark.group(1).startswith(fence)):
            fence = "" if fence else mark.group(1)
        heading = None if fence or mark else HEADING.match(line)
        if heading:
            title = heading.group(2)
            slug = anchor(title)
            count = used.get(slug, 0)
            used[slug] = count + 1
            found.append((f"{slug}-{count}" if count else slug, title, []))
        found[-1][2].append(line)
    whole = [(slug, title, "\n".join(body).strip()) for slug, title, body in found]
    return [(slug, title, body) for slug, title, body in whole if body]


def anchor(title: str) -> str:
    """Return the anchor that GitHub gives a heading: lower case, punctuation gone, spaces to hyphens."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def _linked(document: Document, known: set[str], first_of: dict[str, str]) -> Document:
    targets: dict[str, None] = {}
    for target in HYPERLINK.findall(document.text):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, fragment = target.partition("#")
        name = posixpath.normpath(posixpath.join(posixpath.dirname(document.group), file)) if file else document.group
        found = f"{name}#{fragment}"
        found = found if found in known else first_of.get(name, "")
        if found and found != document.doc_id:
            targets[found] = None
    return replace(document, links=tuple(targets))

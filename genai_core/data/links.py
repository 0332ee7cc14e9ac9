"""Links: which documents a document names. A link is a doc_id, given once, in the order of the text.

"See also `textwrap.fill()`."           -> the document titled textwrap.fill
"the foo of bar, see Eternal September" -> the document titled Eternal September
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

from genai_core.data.documents import Document

DOTTED = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(\(|(?=\W|$))")
WORD = re.compile(r"\w+")
LEAST_TITLE = 4  # shorter titles ("C", "is") are words of the text more often than names of a document
COMMON_SHARE = 0.02  # a title found in more documents than this (and than LEAST_COMMON) is an ordinary word
LEAST_COMMON = 20


def link_names(documents: Sequence[Document]) -> list[Document]:
    """Return the documents with links to the objects whose dotted names they mention.

    A name with a dot is looked up as it stands, then within the document's own module and class; a name without one
    only where it is called, as in `fill()`.
    """
    ids = {document.title: document.doc_id for document in documents if document.meta.get("kind") != "topic"}
    linked = []
    for document in documents:
        scopes = _scopes(document.title)
        found: dict[str, None] = {}
        for match in DOTTED.finditer(document.text):
            name = match.group().removesuffix("(")
            if "." not in name and not match.group(1):
                continue
            target = next((ids[each] for each in (*(f"{scope}.{name}" for scope in scopes), name) if each in ids), "")
            if target and target != document.doc_id:
                found[target] = None
        linked.append(replace(document, links=tuple(found)))
    return linked


def link_titles(documents: Sequence[Document]) -> list[Document]:
    """Return the documents with links to those whose title stands in their text, as whole words, in the same case.

    The longest title wins where several begin at one word. Titles that many documents mention are ordinary words.
    """
    ids: dict[str, str] = {}
    for document in documents:
        if len(document.title) >= LEAST_TITLE and WORD.match(document.title):
            ids.setdefault(document.title, document.doc_id)
    lengths: dict[str, set[int]] = defaultdict(set)
    for title in ids:
        match = WORD.match(title)
        assert match is not None
        lengths[match.group()].add(len(title))
    longest_first = {word: sorted(found, reverse=True) for word, found in lengths.items()}
    named = [_titles_in(document.text, ids, longest_first) for document in documents]
    mentions: dict[str, int] = defaultdict(int)
    for titles in named:
        for title in titles:
            mentions[title] += 1
    most = max(LEAST_COMMON, COMMON_SHARE * len(documents))
    return [
        replace(
            document,
            links=tuple(ids[title] for title in titles if mentions[title] <= most and ids[title] != document.doc_id),
        )
        for document, titles in zip(documents, named, strict=True)
    ]


def keep_links(documents: Sequence[Document]) -> list[Document]:
    """Return the documents with only those links whose target is among them."""
    known = {document.doc_id for document in documents}
    return [replace(document, links=tuple(link for link in document.links if link in known)) for document in documents]


def _scopes(title: str) -> list[str]:
    parts = title.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _titles_in(text: str, titles: Container[str], lengths: Mapping[str, Sequence[int]]) -> list[str]:
    """Return the titles in a text; `lengths` are those of the titles that begin with a word, the longest first.

    Looked up by length: a corpus of ten times the titles has hardly more lengths, so the time a word takes stays.
    """
    found: dict[str, None] = {}
    end = 0
    for match in WORD.finditer(text):
        start = match.start()
        if start < end:
            continue
        for length in lengths.get(match.group(), ()):
            stop = start + length
            if text[start:stop] in titles and not text[stop : stop + 1].isalnum():
                found[text[start:stop]] = None
                end = stop
                break
    return list(found)

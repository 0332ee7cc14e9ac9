"""Documents -> what they are asked for by, and the documents: retrieval pairs that nobody had to write.

    query       the one-line summary of a documented object; the title of any other document
    document    its text without that line, so that the words alone do not give it away
    negatives   other documents of the same group (module, file): alike, and wrong

A document without a summary of at least three words, or a title, gives no example. What is drawn for a document depends on the
seed, the document and its group alone.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from genai_core.augmentation.sentences import collapse_spaces
from genai_core.data.documents import Document
from genai_core.data.retrieval_rows import RetrievalExample

_LEAST_WORDS = 3


def retrieval_examples(documents: Sequence[Document], negatives: int, seed: int) -> dict[str, RetrievalExample]:
    """Return the example of each document that has one, by its id, in their order.

    Args:
        documents: of one side of the split.
        negatives: most of each example; a small group gives fewer.
        seed: decides which.
    """
    found = {document.doc_id: pair for document in documents if (pair := _part(document)) is not None}
    groups: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        if document.doc_id in found:
            groups[document.group].append(document.doc_id)
    examples: dict[str, RetrievalExample] = {}
    for document in documents:
        if document.doc_id not in found:
            continue
        query, text = found[document.doc_id]
        others = [other for other in groups[document.group] if found[other][0] != query]
        drawn = random.Random(f"{seed}/{document.doc_id}").sample(others, min(negatives, len(others)))
        examples[document.doc_id] = RetrievalExample(query, text, tuple(found[other][1] for other in drawn))
    return examples


def _part(document: Document) -> tuple[str, str] | None:
    """Return what a document is asked for by and the rest of it, or None if it has no such line."""
    summary = collapse_spaces(str(document.meta.get("summary") or ""))
    if len(summary.split()) >= _LEAST_WORDS:
        head, _, body = document.text.partition("\n\n")  # the object's name and signature stand above its documentation
        body = collapse_spaces(body)
        return summary, f"{head}\n{body.removeprefix(summary).strip()}".strip()
    title = collapse_spaces(document.title)
    text = document.text.strip()
    rest = text.removeprefix(title).strip()
    return (title, rest) if len(title.split()) >= _LEAST_WORDS and rest and not summary else None

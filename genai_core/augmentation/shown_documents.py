"""Documents as an index holds them and a prompt shows them: short, without blank lines.

textwrap.shorten(text, width, **kwargs)                      a Python object: signature, first sentences
Collapse and truncate the given text to fit in the given width.

Title                                                        any other: title, first words
The first words of the text ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genai_core.augmentation.pydocs_pairs import shown_documentation, shown_signature
from genai_core.augmentation.sentences import collapse_spaces
from genai_core.data.documents import Document


def shown_documents(documents: Sequence[Document], objects: Mapping[str, Any] | None, words: int) -> dict[str, str]:
    """Return {doc_id: text}, in document order.

    Args:
        documents: with text; Python objects also with meta object, signature.
        objects: {dotted name: [[parameter, inspect kind, has_default], ...] or None}; None for other corpora.
        words: most words of the documentation or text.
    """
    return {document.doc_id: _show(document, objects or {}, words) for document in documents}


def _show(document: Document, objects: Mapping[str, Any], words: int) -> str:
    stored = objects.get(str(document.meta.get("object")))
    if stored:
        return f"{shown_signature(document, stored)}\n{shown_documentation(document, words)}".strip()
    body = " ".join(document.text.split()[:words])
    title = collapse_spaces(document.title)
    return body if not title or body.startswith(title) else f"{title}\n{body}"

"""Held-out text: the loss of every document, in nats, bits per byte and per token.

Bits per byte is sum(nll) / ln 2 / bytes: it does not depend on how a tokenizer cuts the text, so models with different
tokenizers compare (Gao et al. 2020, arXiv 2101.00027, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genai_core.data.documents import Document

SUITE = "text"


def text_rows(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Return the rows to be scored."""
    return [{"row_id": document.doc_id, "text": document.text} for document in documents]


def text_cases(scored: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one case a document: nll in nats over all its tokens, n_tokens, n_bytes; of a bound, nll_error."""
    return [
        {
            "suite": SUITE,
            "case_id": row["row_id"],
            "nll": float(row["nll"]),
            "n_tokens": float(row["n_tokens"]),
            "n_bytes": float(row["n_bytes"]),
            **({"nll_error": float(row["nll_error"])} if "nll_error" in row else {}),
        }
        for row in scored
    ]

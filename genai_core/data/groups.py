"""The documents of a group (a module, a file) as one sequence, in their order, so that a later one is read after the earlier.

    <end> Return the sine of x. <end> Return the cosine of x. <end> ...      one segment instead of many

A document of few tokens alone teaches hardly any reading of context. In a sequence of related ones names and turns of
phrase come again, which can be copied (Shi et al. 2024, "In-context pretraining", arXiv 2310.10638, join documents by
similarity; a group is a likeness that is known for nothing).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from genai_core.data.documents import Document
from genai_core.data.order import permute_epoch


def shuffle(documents: Sequence[Document], seed: int) -> list[Document]:
    """Return the documents in a seeded order."""
    return [documents[index] for index in permute_epoch(seed, 0, len(documents))]


def shuffle_groups(documents: Sequence[Document], seed: int) -> list[Document]:
    """Return the groups in a seeded order, each whole, its documents in the order given."""
    groups: dict[str, list[Document]] = {}
    for document in documents:
        groups.setdefault(document.group, []).append(document)
    members = list(groups.values())
    return [document for index in permute_epoch(seed, 0, len(members)) for document in members[index]]


def join_groups(token_lists: Iterable[Sequence[int]], groups: Sequence[str], separator_id: int) -> Iterator[list[int]]:
    """Yield the tokens of each run of documents with one group, a separator between two documents.

    Args:
        token_lists: the documents' ids, without special tokens.
        groups: the group of each.
        separator_id: stands between two documents; the token that ends a document elsewhere.
    """
    for _, members in groupby(zip(groups, token_lists, strict=True), key=lambda member: member[0]):
        joined: list[int] = []
        for _, tokens in members:
            if joined and len(tokens):
                joined.append(separator_id)
            joined += tokens
        yield joined

"""Documents in, instruction pairs out: the registry of pair builders.

    config.kind      task          the answer is
    pydocs           call, name    written by us from a signature, a summary
    quotes           quote         a sentence of the document
    fields           answer        a field of the row
    conversations    answer        the assistant's last turn
    symbols          symbols, ...  what exemplars of the same class are labelled with

Give it all documents of a corpus, before or after the split: a pair carries its document's group. (Only pydocs names
look at other documents: a summary that two of them share points at neither.) But symbols want those of one side of the split:
exemplars are other documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from genai_core.augmentation.field_pairs import conversation_pairs, field_pairs
from genai_core.augmentation.pydocs_pairs import pydocs_pairs
from genai_core.augmentation.quote_pairs import quote_pairs
from genai_core.augmentation.symbol_tuning import symbol_pairs
from genai_core.config.data import ConversationPairs, FieldPairs, Pairs, PydocsPairs, QuotePairs, SymbolPairs
from genai_core.data.documents import Document, Pair
from genai_core.errors import DataError


def build_pairs(
    documents: Sequence[Document],
    config: Pairs,
    seed: int,
    objects: Mapping[str, Any] | None,
    *,
    documented: bool = True,
    held_out: bool = False,
) -> list[Pair]:
    """Return the instruction pairs of the documents, in document order; the same for the same arguments.

    Args:
        documents: what is left after cleaning; pydocs builders read meta object, signature, kind, summary, table
            builders meta fields.
        config: which builder, and its settings.
        seed: decides what is drawn; with a document's own id, so that other documents do not matter.
        objects: pydocs only: {dotted name: [[parameter, inspect kind, has_default], ...] or None if unknown}.
        documented: show a pydocs object's documentation; False where documents are retrieved for the question.
        held_out: symbols only: whether the documents are those that are measured on.

    Raises:
        DataError: no pair comes out; says why and what to change.
    """
    match config:
        case PydocsPairs():
            if objects is None:
                raise DataError("pairs.kind='pydocs' needs the objects of the pydocs source, and there are none.")
            return pydocs_pairs(documents, config, seed, objects, documented=documented)
        case QuotePairs():
            return quote_pairs(documents, config, seed)
        case FieldPairs():
            return field_pairs(documents, config)
        case ConversationPairs():
            return conversation_pairs(documents, config)
        case SymbolPairs():
            return symbol_pairs(documents, config, seed, held_out=held_out)
        case _:
            assert_never(config)

"""A query, its document and hard negatives -> one packed row, a segment each; how a text to embed is written.

    <|endoftext|> <|user|>\\n Find the object \\n<|embed|>\\n  closes a file  |  <|endoftext|> <|embed|>\\n  io.IOBase.close ...
          0          0             0               0               1                0           0             1    loss_mask

The marker says that a text is to be embedded, which the model then reads from both sides; it is ordinary text, as in GRIT
(arXiv 2402.09906, appendix), so no vocabulary must have it. Only the text itself is marked for pooling: instruction and
marker are read, but have no share in the vector. Header and text are tokenised apart, here and when a text is embedded later,
so a text has the same tokens under every instruction. No end token follows.

Long texts are cut at the end. A query has at most its share of the row; what is left is divided evenly among the documents,
the right one and the wrong ones alike, so that a document's length does not tell which it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerFast

from genai_core.data.packing import PackedRows, pack_groups
from genai_core.data.tokenizer import document_end_id, encode_documents
from genai_core.errors import ConfigError, DataError

USER_HEADER = "<|user|>\n"
EMBED_HEADER = "<|embed|>\n"
EMBEDDING = "embedding.json"
"""File of a model's folder that tells how it embeds: the `contrastive` objective of its training, and its rows' length."""

ROW_TOKENS = "row_tokens"


@dataclass(frozen=True, slots=True)
class RetrievalExample:
    """What a query shall find, and what it shall not."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()


def embedding_header(tokenizer: PreTrainedTokenizerFast, instruction: str = "") -> list[int]:
    """Return the ids before a text to embed; an instruction says what it is embedded for, '' = nothing."""
    start = [document_end_id(tokenizer)]
    instruction = instruction.strip("\t\n :")
    if not instruction:
        return [*start, *_marks(tokenizer, EMBED_HEADER)]
    told = next(encode_documents(tokenizer, [instruction]))
    return [*start, *_marks(tokenizer, USER_HEADER), *told, *_marks(tokenizer, f"\n{EMBED_HEADER}")]


def build_retrieval_rows(
    examples: Iterable[RetrievalExample],
    tokenizer: PreTrainedTokenizerFast,
    seq_len: int,
    *,
    negatives: int = 0,
    query_instruction: str = "",
    document_instruction: str = "",
    query_share: float = 0.25,
) -> tuple[PackedRows, dict[str, Any]]:
    """Return one row an example, and what was cut or left out; the same arguments give the same rows.

    Left out and counted: examples with an empty query or document, repetitions, negatives that are the document itself or too
    many. A row may have fewer negatives than others.

    Args:
        examples: in the order of the rows.
        tokenizer: of the model.
        seq_len: T, tokens in a row.
        negatives: most hard negatives of a row.
        query_instruction: what queries are embedded for.
        document_instruction: what documents are embedded for; usually ''.
        query_share: largest share of a row that its query takes, header included.

    Raises:
        ConfigError: the headers leave no room for text.
        DataError: no example is left.
    """
    ask, tell = embedding_header(tokenizer, query_instruction), embedding_header(tokenizer, document_instruction)
    query_limit = int(seq_len * query_share)
    if query_limit <= len(ask) or (seq_len - query_limit) // (1 + negatives) <= len(tell):
        raise ConfigError(
            f"seq_len={seq_len} is too short for a query (at most {query_limit} tokens, {len(ask)} of them its header) and "
            f"{1 + negatives} documents with a header of {len(tell)} tokens. Raise seq_len, or shorten the instructions."
        )
    dropped: Counter[str] = Counter()
    kept = list(_choose(examples, negatives, dropped))
    if not kept:
        raise DataError(
            f"No retrieval example is left to train on; dropped: {dict(sorted(dropped.items()))}. Give queries and "
            "documents with text."
        )
    texts = iter(
        encode_documents(tokenizer, (text for one in kept for text in (one.query, one.positive, *one.negatives)))
    )
    cut: Counter[str] = Counter()
    groups = []
    for one in kept:
        query = _mark(ask, next(texts), query_limit, cut, "query")
        limit = (seq_len - len(query[0])) // (1 + len(one.negatives))
        documents = [_mark(tell, next(texts), limit, cut, "document") for _ in range(1 + len(one.negatives))]
        groups.append([query, *documents])
    rows = pack_groups(groups, seq_len, pad_id=tokenizer.pad_token_id or 0)
    stats = {
        "rows": len(rows),
        "documents": sum(len(group) - 1 for group in groups),
        "truncated": dict(sorted(cut.items())),
        "dropped": dict(sorted(dropped.items())),
        "efficiency": rows.efficiency(),
    }
    return rows, stats


def _choose(examples: Iterable[RetrievalExample], most: int, dropped: Counter[str]) -> Iterable[RetrievalExample]:
    seen: set[tuple[str, str]] = set()
    for one in examples:
        query, positive = one.query.strip(), one.positive.strip()
        if not query or not positive:
            dropped["empty"] += 1
        elif (query, positive) in seen:
            dropped["duplicate"] += 1
        else:
            seen.add((query, positive))
            told = [text.strip() for text in one.negatives]
            wrong = list(dict.fromkeys(text for text in told if text and text != positive))
            dropped["negative"] += len(told) - len(wrong[:most])
            yield RetrievalExample(query, positive, tuple(wrong[:most]))


def _mark(
    header: Sequence[int], text: Sequence[int], limit: int, cut: Counter[str], what: str
) -> tuple[list[int], list[int]]:
    room = limit - len(header)
    cut[what] += len(text) > room
    shown = list(text[:room])
    return [*header, *shown], [0] * len(header) + [1] * len(shown)


def _marks(tokenizer: PreTrainedTokenizerFast, header: str) -> list[int]:
    """Return the ids of a header; what the vocabulary has as a special token is one."""
    ids: list[int] = tokenizer(header, add_special_tokens=False)["input_ids"]
    return ids

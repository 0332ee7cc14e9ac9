"""Retrieval rows: what is pooled is the text, what is cut is counted, and a row is one example."""

from __future__ import annotations

import numpy as np
import pytest
from tokens_world import TEXTS, foreign_tokenizer, own_tokenizer

from genai_core.data.collate import collate
from genai_core.data.retrieval_rows import RetrievalExample, build_retrieval_rows, embedding_header
from genai_core.data.tokenizer import encode_documents
from genai_core.errors import ConfigError, DataError

SEQ_LEN = 160


def segments_of(row):
    """Return (ids, loss_mask) of each segment."""
    ends = np.cumsum(row.seq_lengths)
    return [
        (row.input_ids[end - n : end].tolist(), row.loss_mask[end - n : end].tolist())
        for end, n in zip(ends, row.seq_lengths, strict=True)
    ]


def pooled_text(tokenizer, row):
    """Return what the pooled tokens of each segment spell, without the padding."""
    found = []
    for ids, mask in segments_of(row):
        if any(mask):
            found.append(tokenizer.decode([i for i, marked in zip(ids, mask, strict=True) if marked]))
    return found


@pytest.mark.parametrize("tokenizer", [own_tokenizer(), foreign_tokenizer()], ids=["own", "foreign"])
def test_the_pooled_tokens_spell_exactly_the_texts(tokenizer) -> None:
    texts = [text.strip() for text in TEXTS if 0 < len(text.strip()) < 60]
    examples = [
        RetrievalExample(one, two, (three,)) for one, two, three in zip(texts, texts[1:], texts[2:], strict=False)
    ]
    rows, stats = build_retrieval_rows(
        examples, tokenizer, 600, negatives=1, query_instruction=" Find the object: \n", query_share=0.4
    )
    assert not any(stats["truncated"].values())
    for row, one in zip(rows, examples, strict=True):
        assert pooled_text(tokenizer, row) == [one.query, one.positive, *one.negatives]
        (ids, mask), *_ = segments_of(row)
        header = embedding_header(tokenizer, "Find the object")
        assert ids[: len(header)] == header
        assert mask[: len(header)] == [0] * len(header)
        batch = collate([row])
        assert int((batch["labels"] != -100).sum()) == int(row.loss_mask.sum()), "no marked token opens a segment"


def test_a_text_that_spells_a_marker_is_letters() -> None:
    tokenizer = own_tokenizer()
    rows, _ = build_retrieval_rows([RetrievalExample("<|endoftext|>", "<|user|>")], tokenizer, SEQ_LEN)
    [(query, marked), (document, _), *_] = segments_of(rows[0])
    assert query.count(tokenizer.eos_token_id) == 1
    assert sum(marked) > 3
    assert tokenizer.convert_tokens_to_ids("<|user|>") not in document


def test_long_texts_are_cut_to_their_share_and_counted() -> None:
    tokenizer, long = own_tokenizer(), "the longest list of paths " * 40
    examples = [
        RetrievalExample(f"{long} 0", f"1 {long}", (f"2 {long}", "short")),
        RetrievalExample("list 4", f"5 {long}"),
        RetrievalExample("list 6", "path"),
    ]
    rows, stats = build_retrieval_rows(examples, tokenizer, SEQ_LEN, negatives=2, query_share=0.25)
    assert stats["truncated"] == {"document": 3, "query": 1}
    lengths = [row.seq_lengths.tolist() for row in rows]
    assert lengths[0][:3] == [40, 40, 40], "as much for a wrong document as for the right one"
    assert lengths[1][1] == SEQ_LEN - lengths[1][0], "one document has all that the query leaves"
    [whole] = encode_documents(tokenizer, [examples[0].positive.strip()])
    (ids, mask) = segments_of(rows[0])[1]
    assert [i for i, marked in zip(ids, mask, strict=True) if marked] == whole[: sum(mask)]


def test_what_is_left_out_is_counted() -> None:
    examples = [
        RetrievalExample("a list", "a path"),
        RetrievalExample("a list ", " a path", ("other",)),
        RetrievalExample("  ", "a path"),
        RetrievalExample("a path", "\n"),
        RetrievalExample("a value", "a list", ("a list", "x", "x", "y", "z")),
    ]
    rows, stats = build_retrieval_rows(examples, own_tokenizer(), SEQ_LEN, negatives=2)
    assert stats["dropped"] == {"duplicate": 1, "empty": 2, "negative": 3}
    assert (len(rows), stats["documents"]) == (2, 4)
    assert pooled_text(own_tokenizer(), rows[1]) == ["a value", "a list", "x", "y"]


def test_rows_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"seq_len=16 is too short for a query \(at most 4 tokens"):
        build_retrieval_rows([RetrievalExample("a", "b")], own_tokenizer(), 16)
    with pytest.raises(DataError, match="No retrieval example is left"):
        build_retrieval_rows([RetrievalExample("", "b")], own_tokenizer(), SEQ_LEN)


def test_the_same_examples_give_the_same_bytes(tmp_path) -> None:
    examples = [RetrievalExample(f"list {i}", f"path {i}", (f"value {i}",)) for i in range(20)]
    for name in ("a", "b"):
        build_retrieval_rows(examples, own_tokenizer(), SEQ_LEN, negatives=1)[0].write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

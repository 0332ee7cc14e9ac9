"""Quotes out of any prose: the passage holds the sentence once, and the beginning points at it alone."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from genai_core.augmentation.pairs import build_pairs
from genai_core.augmentation.quote_pairs import read_beginning, read_passage
from genai_core.augmentation.sentences import split_sentences
from genai_core.config.data import QuotePairs
from genai_core.data.documents import Document
from genai_core.errors import DataError

DATA = Path(os.environ.get("GENAI_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
STORY = "Tom had a red ball. Tom had a blue ball that he loved. He liked to play with both balls. Then the rain came down hard."


def prose() -> list[Document]:
    """60 stories and the first chapters of a novel, in paragraphs' worth of lines."""
    folder = DATA / "pretrain"
    if not folder.exists():
        pytest.skip(f"no test data in {DATA}; set GENAI_TEST_DATA")
    with gzip.open(folder / "tinystories_2mb.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(60), strict=False)]
    with gzip.open(folder / "moby_dick.txt.gz", "rt", encoding="utf-8") as handle:
        novel = handle.read(400_000)
    stories = [Document(row["id"], row["id"], row["id"], row["text"]) for row in rows]
    chapters = novel.split("CHAPTER ")[-8:]
    return stories + [Document(f"moby-{at}", "moby", f"{at}", chapter) for at, chapter in enumerate(chapters)]


def test_quotes_of_real_prose_are_unique_whole_sentences():
    documents = prose()
    pairs = build_pairs(documents, QuotePairs(per_document=3), 0, None)
    assert len(pairs) > 2.5 * len(documents)
    assert len({pair.prompt for pair in pairs}) == len(pairs) == len({pair.pair_id for pair in pairs})
    for pair in pairs:
        passage, beginning = read_passage(pair.prompt), read_beginning(pair.prompt)
        shown = split_sentences(passage)
        assert shown.count(pair.completion) == 1
        assert [sentence for sentence in shown if sentence.startswith(beginning)] == [pair.completion]
        assert 6 <= len(pair.completion.split()) <= 25
        assert len(passage.split()) <= 80
        assert pair.completion not in pair.prompt.rpartition("\n\n")[2]


def test_removing_a_document_leaves_the_other_pairs_unchanged():
    documents = prose()
    before = build_pairs(documents, QuotePairs(), 3, None)
    after = build_pairs(documents[1:], QuotePairs(), 3, None)
    assert after == [pair for pair in before if pair.doc_id != documents[0].doc_id]
    assert {pair.prompt for pair in build_pairs(documents, QuotePairs(), 4, None)} != {pair.prompt for pair in before}


def test_a_beginning_is_as_long_as_it_must_be_and_no_longer():
    lengths = set()
    for seed in range(20):
        for pair in build_pairs([Document("d", "g", "t", STORY)], QuotePairs(per_document=4), seed, None):
            twins = pair.prompt.count("Tom had a") - 1  # the request says it again
            needed = 4 if "Tom had a" in pair.completion and twins == 2 else 3
            assert len(read_beginning(pair.prompt).split()) == needed
            lengths.add(needed)
    assert lengths == {3, 4}


def test_short_passages_give_none_and_an_error_with_a_remedy():
    short = [Document("a", "g", "t", "Only one sentence stands here and that is all."), Document("b", "g", "t", "")]
    with pytest.raises(DataError, match=r"none of the 2 documents .* Raise pairs.passage_words"):
        build_pairs(short, QuotePairs(), 0, None)
    assert build_pairs([*short, Document("c", "g", "t", STORY)], QuotePairs(), 0, None)


def test_a_heading_that_runs_into_a_sentence_is_never_half_a_quote():
    text = "CHAPTER ONE\n\nThe old house stood at the end of the lane. Nobody had lived in it for years now."
    for seed in range(10):
        for pair in build_pairs([Document("d", "g", "t", text)], QuotePairs(), seed, None):
            assert pair.completion in split_sentences(read_passage(pair.prompt))

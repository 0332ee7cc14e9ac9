"""The graph of links: which piece of a text carries which, and neighbours by TF-IDF against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from genai_core.augmentation.link_graph import place_links, segments_of, similar_documents
from genai_core.config.objectives import LinkedLm
from genai_core.data.documents import Document

DOCUMENTS = [
    Document("d/wrap", "d", "textwrap.wrap", "wrap a text into lines . to join them again use fill or shorten it", ("d/fill", "d/none")),
    Document("d/fill", "d", "textwrap.fill", "fill joins the lines that wrap made of a text", ("d/wrap",)),
    Document("d/odd", "d", "odd", "a page that points somewhere in other words and goes on and on and on", ("d/fill",)),
]  # fmt: skip


def words() -> PreTrainedTokenizerFast:
    found = sorted({word for one in DOCUMENTS for word in one.text.split()})
    inner = Tokenizer(WordLevel({word: at for at, word in enumerate(["?", *found])}, "?"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?")


def test_a_piece_carries_the_links_that_it_names() -> None:
    tokenizer = words()
    found = segments_of(DOCUMENTS, tokenizer, 8, LinkedLm())
    texts = [tokenizer.decode(one.ids) for one in found]
    assert [one.document for one in found] == [0, 0, 0, 1, 1, 2, 2, 2]
    assert [one.number for one in found] == [0, 1, 2, 0, 1, 0, 1, 2]
    assert " ".join(texts[:3]) == DOCUMENTS[0].text
    assert texts[2] == "fill or shorten it"
    assert [one.targets for one in found[:3]] == [(), (), (1,)], (
        "'fill' stands in the third; d/none is no document here"
    )
    assert texts[4] == "wrap made of a text"
    assert [one.targets for one in found[3:5]] == [(), (0,)]
    assert [one.targets for one in found[5:]] == [(1,), (1,), (1,)], "named by no piece: carried by all"


def test_titles_are_found_by_their_last_part_too() -> None:
    assert place_links(["see os.path.join", "nothing"], [4], ["os.path.join"]) == [(4,), ()]
    assert place_links(["then join() them", "nothing"], [4], ["os.path.join"]) == [(4,), ()]


def test_neighbours_are_those_of_scikit_learn() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{at}" for at in rng.zipf(1.5, 30) if at < 200) for _ in range(60)]
    vectors = text.TfidfVectorizer(token_pattern=r"(?u)\b\w\w+\b").fit_transform(texts)
    likeness = (vectors @ vectors.T).toarray()
    np.fill_diagonal(likeness, 0)
    for row, found in enumerate(similar_documents(texts, 5)):
        expected = np.sort(likeness[row])[::-1][:5]
        np.testing.assert_allclose(likeness[row][found], expected[expected > 0], atol=1e-12)
        assert row not in found
    assert similar_documents(["alone here", "nothing alike"], 5) == [[], []]

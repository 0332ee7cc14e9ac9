"""LinkBERT in small: what is asked are pairs that are linked, and the same texts behind others."""

from __future__ import annotations

from typing import Any

import pytest
from tried_claim import judged

from genai_core.claims import linkbert
from genai_core.claims.arms import small_corpus
from genai_core.claims.base import Setting
from genai_core.data.documents import read_documents_file
from genai_core.data.tokenizer import load_tokenizer


def test_linked_pairs_are_linked_and_only_their_second_text_is_asked(tried: Setting) -> None:
    corpus = small_corpus(tried)
    side = linkbert._pairs(corpus, ("train",), 0, 50)
    tokenizer = load_tokenizer(corpus / "tokenizer")
    documents = {one.doc_id: one for one in read_documents_file(corpus / "documents" / "train.parquet")}
    linked = {
        (document.doc_id, target) for document in documents.values() for target in document.links if target in documents
    }
    assert len(side.linked) == len(side.strange) == 50

    def texts(row: Any) -> tuple[str, str]:
        asked = row.loss_mask.astype(bool)
        ids = row.input_ids[: row.seq_lengths[0]]
        assert ids[0] == ids[-1] == tokenizer.eos_token_id
        first = ids[1 : asked.argmax() - 1]
        return tokenizer.decode(first), tokenizer.decode(row.input_ids[asked])

    for own, strange in zip(side.linked.rows, side.strange.rows, strict=True):
        (first, second), (other, again) = texts(own), texts(strange)
        assert second == again, "the same text is asked behind both"
        sources = {name for name, document in documents.items() if first.strip() in document.text}
        targets = {name for name, document in documents.items() if second.strip() in document.text}
        strangers = {name for name, document in documents.items() if other.strip() in document.text}
        assert any((a, b) in linked for a in sources for b in targets)
        if len(strangers) == len(targets) == 1:
            assert not any((a, b) in linked or (b, a) in linked for a in strangers for b in targets)


@pytest.mark.worlds  # two trainings of a small model, minutes
def test_linkbert_asks_both_arms_the_same(tried: Setting) -> None:
    means = judged(linkbert.CLAIM, linkbert.measure(tried))
    assert 0 < means[f"{linkbert.BEHIND}/linked"] < 10
    assert means[f"{linkbert.BEHIND}/linked"] != means[f"{linkbert.BEHIND}/unlinked"]

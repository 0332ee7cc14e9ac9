"""GRIT in small: three arms see the same rows, each learns from its own terms, and the same queries are asked of all."""

from __future__ import annotations

import pytest
from tried_claim import judged

from genai_core.claims import grit
from genai_core.claims.base import Setting


@pytest.mark.worlds  # four trainings of a small model, minutes
def test_grit_asks_its_three_arms_and_words_the_same(tried: Setting) -> None:
    means = judged(grit.CLAIM, grit.measure(tried))
    arms = [f"{grit.LOSS}/{name}" for name in ("joint", "writing alone")]
    assert all(0 < means[arm] < 10 for arm in arms)
    assert means[arms[0]] != means[arms[1]], "the contrastive term moves the weights, and at weight 0 it does not"
    assert means[f"{grit.NDCG}/BM25"] > 0.3, "words find what a summary is about"

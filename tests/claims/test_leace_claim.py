"""LEACE in small: the kind of object can be read, then no longer; a random projection hides nothing."""

from __future__ import annotations

import pytest
import torch
from tried_claim import judged

from genai_core.claims import leace
from genai_core.claims.base import Setting


@pytest.mark.worlds  # erasers of every layer of a small model, minutes
def test_leace_hides_the_kind_and_a_random_projection_does_not(tried: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leace, "FITTED", 250)
    monkeypatch.setattr(leace, "ASKED", 200)
    monkeypatch.setattr(leace, "DOCUMENTS", 20)
    means = judged(leace.CLAIM, leace.measure(tried))
    right = {arm: means[f"{leace.RIGHT}/{arm}"] for arm in (leace.BEFORE, leace.AFTER, leace.RANDOM, leace.COMMONEST)}
    assert right[leace.BEFORE] > right[leace.COMMONEST] + 0.1, "there was something to hide"
    assert right[leace.AFTER] < right[leace.COMMONEST] + 0.03
    assert right[leace.RANDOM] > right[leace.AFTER] + 0.1
    assert means[f"{leace.BITS}/{leace.BEFORE}"] != means[f"{leace.BITS}/{leace.AFTER}"], "it erases while text is read"


def test_the_commonest_label_is_guessed_from_the_other_half() -> None:
    labels = torch.tensor([0] * 30 + [1] * 10)
    assert leace._guessed_in_halves(labels, 0) == [1.0] * 30 + [0.0] * 10

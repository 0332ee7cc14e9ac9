"""Retriever-aware training in small: arms that differ in their documents alone, and the curve over wrong ones."""

from __future__ import annotations

import pytest
from tried_claim import judged, taught

from genai_core.claims import rat
from genai_core.claims.base import Setting


def test_rat_asks_held_out_objects_with_and_without_documents(
    tiny_instruct: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rat, "SEQ_LEN", 1024)  # a small vocabulary has more tokens a word
    cases = rat.measure(tiny_instruct)
    means = judged(rat.CLAIM, cases)
    assert means[f"{rat.RIGHT}/{rat.ALONE}"] < 0.2, "nothing was learned in a few steps"
    assert set(cases) >= {rat._beside(wrong) for wrong in rat.WRONG}
    varied, oracle = taught(tiny_instruct)[-2:]
    assert [pair.completion for pair in varied] == [pair.completion for pair in oracle]
    assert all(len(pair.check["retrieved"]) == 1 and pair.check["is_oracle_in_context"] for pair in oracle)
    assert {len(pair.check["retrieved"]) for pair in varied} == {0, 1, 2, 3}


def test_the_curve_over_wrong_documents_is_summed_by_question() -> None:
    found = rat.over_wrong_documents({"a": [[1, 1, 0], [1, 0, 0], [0, 0, 0]], "b": [[0, 0, 1], [0, 0, 1], [0, 0, 1]]})
    assert found[rat.ALL] == {"a": [0.5, 0, 0], "b": [0, 0, 1]}
    assert found[rat.FALL] == {"a": [0.5, 1, 0], "b": [0, 0, 0]}
    assert found[rat._beside(rat.WRONG[1])]["a"] == [1, 0, 0]

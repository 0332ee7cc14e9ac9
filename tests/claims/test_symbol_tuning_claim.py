"""Symbol tuning in small: arms that differ in their labels alone, and the same held-out texts in every setting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tried_claim import judged, taught

from genai_core.augmentation.symbol_tuning import symbol_pairs
from genai_core.claims import symbol_tuning
from genai_core.claims.base import Setting


def test_symbol_tuning_asks_the_same_texts_in_every_setting(
    tiny_instruct: Setting, test_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symbol_tuning, "FILES", "classification/subjectivity.jsonl.gz")
    monkeypatch.setattr(symbol_tuning, "ASKED", 20)
    cases = symbol_tuning.measure(replace(tiny_instruct, data=test_data))
    judged(symbol_tuning.CLAIM, cases)
    assert set(cases) == set(symbol_tuning.FIGURES.values())
    natural, symbols = taught(tiny_instruct)[-2:]
    assert [pair.doc_id for pair in natural] == [pair.doc_id for pair in symbols]
    assert {pair.completion for pair in natural} == {"objective", "subjective"}
    assert len({pair.completion for pair in symbols}) > len(symbols) / 2, "drawn anew for every prompt"
    texts = symbol_tuning._texts(test_data, "test", 200, 0)
    pairs = symbol_pairs(texts, symbol_tuning.PROMPTS, 0, held_out=True)
    asked = {
        task: {one.doc_id for one in symbol_tuning._choose([pair for pair in pairs if pair.task == task], 0)}
        for task in ("symbols", "flipped")
    }
    assert asked["symbols"] == asked["flipped"] and len(asked["symbols"]) == 20

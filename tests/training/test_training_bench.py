"""The benchmark compares like with like: on the same rows transformers' Trainer learns what the engine learns."""

from __future__ import annotations

import pytest
import torch

from genai_core.training import bench

TINY = bench.Size(layers=2, width=32, heads=2, kv_heads=2, d_ff=64, vocab=97, row_tokens=64, step_tokens=256)


def test_ours_and_trainer_learn_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.SIZES, "tiny", TINY)
    monkeypatch.setattr(bench, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(bench, "RATE", 1e-2)
    found = bench.measure_size("tiny", ["ours", "trainer", "trainer-padded"], 1, 8, torch.device("cpu"))
    ours, trainer, padded = found["contenders"].values()
    assert ours["loss"] == pytest.approx(trainer["loss"], abs=2e-4)
    assert ours["loss"] < 4.45, "it learns: log(97) is 4.57"
    assert padded["loss"] == pytest.approx(ours["loss"], abs=0.2)
    assert ours["ours_over_it"] == 1.0
    assert bench.table({"tiny": found}).count("\n") == 4

"""The benchmark compares like with like: on the same rows transformers' Trainer learns what the engine learns."""

from __future__ import annotations

import os

import pytest

from genai_core.training import bench, bench_peers

TINY = bench.Size(layers=2, width=32, heads=2, kv_heads=2, d_ff=64, vocab=97, row_tokens=64, step_tokens=256)


def test_ours_and_trainer_learn_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.SIZES, "tiny", TINY)
    monkeypatch.setattr(bench, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(bench, "RATE", 1e-2)
    monkeypatch.setattr(bench_peers, "RATE", 1e-2)
    # another process would not have what is patched here
    monkeypatch.setattr(bench, "in_own_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(bench, "keep_freed_memory", lambda: None)
    found = bench.measure_size("tiny", ["ours", "trainer", "trainer-padded"], 1, 8, 0)
    ours, trainer, padded = found["contenders"].values()
    assert ours["loss"] == pytest.approx(trainer["loss"], abs=2e-4)
    assert ours["loss"] < 4.45, "it learns: log(97) is 4.57"
    assert padded["loss"] == pytest.approx(ours["loss"], abs=0.2)
    assert ours["ours_over_it"] == 1.0
    assert bench.table({"tiny": found}).count("\n") == 4
    monkeypatch.undo()
    assert bench.in_own_process(os.getpid) != os.getpid()


def test_a_ratio_that_has_fallen_is_named_and_noise_is_not() -> None:
    def figures(**ratios: float) -> dict[str, object]:
        return {
            "6M": {"contenders": {name: {"ours_over_it": ratio} for name, ratio in {"ours": 1.0, **ratios}.items()}}
        }

    before = figures(trainer=1.4, sft=7.0)
    assert bench.find_slower(figures(trainer=1.25, sft=8.0), before, 0.15) == []
    assert bench.find_slower(figures(trainer=1.1), before, 0.15) == [
        "6M: ours / trainer is 1.10, it was 1.40 (tolerance 15%)"
    ]
    assert bench.find_slower({"7M": figures(trainer=0.1)["6M"]}, before, 0.15) == []


def test_a_baseline_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--against", "nowhere.json"])
    assert "nowhere.json: there is no such file" in capsys.readouterr().err

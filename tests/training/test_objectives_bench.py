"""Every objective of the union is timed, on the same rows, beside next-token prediction."""

from __future__ import annotations

from typing import get_args

import pytest

from genai_core.config.objectives import Mixture, Objective
from genai_core.training import bench, bench_objectives

TINY = bench.Size(layers=2, width=32, heads=2, kv_heads=2, d_ff=64, vocab=97, row_tokens=64, step_tokens=256)


def test_no_objective_is_missing() -> None:
    kinds = {kind for one in get_args(get_args(Objective)[0]) for kind in get_args(one.model_fields["kind"].annotation)}
    timed = {one.objective.kind for one in bench_objectives.CONTENDERS.values()}
    assert kinds - timed == set()


def test_each_takes_its_turn_and_is_set_beside_the_causal_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.SIZES, "tiny", TINY)
    monkeypatch.setattr(bench_objectives, "find_precision", lambda device: "float32")
    monkeypatch.setattr(bench_objectives, "in_own_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(bench_objectives, "keep_freed_memory", lambda: None)
    found = bench_objectives.measure("tiny", list(bench_objectives.CONTENDERS), 1, 5, 0)
    assert found["causal_lm"]["over_causal_lm"] == 1.0
    assert all(one["median"] > 0 for one in found.values())
    both = next(one for one in bench_objectives.CONTENDERS.values() if isinstance(one.objective, Mixture))
    assert both.passes == 2.0
    assert bench_objectives.table(found).count("\n") == len(found) + 1

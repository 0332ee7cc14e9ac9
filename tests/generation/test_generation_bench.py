"""The benchmark compares like with like: both sides say the same and lose the same."""

from __future__ import annotations

from genai_core.generation.bench import measure


def test_both_sides_say_the_same(model, tokenizer):
    found = measure(model, tokenizer, count=12, new_tokens=6, batch_rows=5, rounds=1)
    assert found["generate"]["equal"] == 1.0
    assert found["score"]["largest_difference"] < 1e-5
    assert all(one["ours"] > 0 and one["it"] > 0 for one in found.values())

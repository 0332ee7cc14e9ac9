"""Several runs side by side."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from calling import call_genai

from genai_core.cli.spread import interval


def report(recipe: str, bits: float, right: float) -> dict[str, Any]:
    stages = [
        {"name": "pretrain", "metrics": {"eval_bits_per_byte": bits}},
        {"name": "evaluate-candidate", "metrics": {"eval/call/right": right}},
    ]
    return {"recipe": recipe, "stages": stages}


@pytest.fixture
def spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "reports"
    folder.mkdir(parents=True)
    for number, (bits, right) in enumerate([(1.5, 0.5), (1.7, 0.7), (1.6, 0.6)]):
        (folder / f"{number}-mine.json").write_text(json.dumps(report("mine", bits, right)))
    (folder / "9-other.json").write_text(json.dumps(report("other", 1.0, 1.0)))

    def call(*arguments: object) -> tuple[int, str, str]:
        code, out, error = call_genai(monkeypatch, capsys, "spread", *arguments)
        return code, out.strip(), error

    return call


def test_the_mean_stands_in_its_interval(spread: Any) -> None:
    code, out, _ = spread("0-mine", "1-mine", "2-mine")
    assert code == 0
    # t(0.975, 2) = 4.3027, s = 0.1, n = 3
    half = 4.3027 * 0.1 / math.sqrt(3)
    assert f"| pretrain: eval_bits_per_byte | 1.5 | 1.7 | 1.6 | 1.6 | {1.6 - half:.4g} to {1.6 + half:.4g} |" in out
    assert "| evaluate-candidate: call/right | 0.5 | 0.7 | 0.6 | 0.6 |" in out


def test_patterns_choose(spread: Any, tmp_path: Path) -> None:
    code, _, _ = spread("0-mine", "1-mine", "--only", "right", "--out", str(tmp_path / "t.md"))
    assert code == 0
    written = (tmp_path / "t.md").read_text()
    assert "call/right" in written and "eval_bits_per_byte" not in written


def test_one_value_alone_leaves_everything_open() -> None:
    assert interval([3.0]) == (3.0, math.inf)
    assert interval([2.0, 2.0, 2.0]) == (2.0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("0-mine", "0-m"), "'0-m' is 0-mine, which is named already"),
        (("0-mine", "9-other"), "runs of different recipes (mine, other)"),
        (("0-mine", "1-mine", "--only", "speed"), "No figure matches 'speed'. The first run has 2"),
        (("7-mine",), "There is no report of '7-mine'"),
    ],
)
def test_what_cannot_be_compared_is_refused(spread: Any, arguments: tuple[str, ...], told: str) -> None:
    code, _, error = spread(*arguments)
    assert code == 2 and told in error

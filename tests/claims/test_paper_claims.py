"""What a verdict rests on: the interval over seeds and cases, the side of the margin, and the page that tells it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from genai_core.claims import registry
from genai_core.claims.base import Cases, Claim, Comparison, Setting, judge
from genai_core.claims.table import page
from genai_core.cli.bench import bench_objectives
from genai_core.cli.main import app
from genai_core.errors import ConfigError, DataError

LOWER = Comparison("loss falls", "loss", "new", "old", "lower")


def cases(shift: float, seed: int = 0, n: int = 300, noise: float = 0.1) -> Cases:
    rng = np.random.default_rng(seed)
    old = rng.normal(2.0, 0.5, n)
    return {"loss": {"old": old.tolist(), "new": (old + shift + rng.normal(0, noise, n)).tolist()}}


def test_a_verdict_follows_the_interval_and_the_margin() -> None:
    better = [cases(-0.1, seed) for seed in range(3)]
    assert judge(LOWER, better).word == "holds"
    assert judge(replace(LOWER, better="higher"), better).word == "the reverse"
    assert judge(LOWER, [cases(0.0, seed, noise=1.0) for seed in range(3)]).word == "not shown"
    worse = [cases(0.05, seed) for seed in range(3)]
    assert judge(replace(LOWER, margin=0.1), worse).word == "holds", "no worse than the margin allows"
    assert judge(replace(LOWER, margin=0.01), worse).word == "the reverse"
    assert judge(replace(LOWER, margin=-0.2), better).word == "the reverse", "it must be better by more than that"


def test_the_interval_is_that_of_the_paired_differences() -> None:
    found = judge(LOWER, [cases(-0.1, 5, n=400)])
    assert found.difference == pytest.approx(found.arm - found.against)
    assert found.difference == pytest.approx(-0.1, abs=0.02)
    # one seed: only cases are drawn, so the half width is 1.96 standard errors of the paired difference
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.1 / 20, rel=0.15)
    apart = [cases(shift, seed) for seed, shift in enumerate((-0.5, 0.4, -0.6))]
    assert judge(LOWER, apart).word == "not shown", "seeds that disagree widen it"


def test_arms_need_the_same_cases() -> None:
    with pytest.raises(DataError, match="same cases"):
        judge(LOWER, [{"loss": {"old": [1.0], "new": [1.0, 2.0]}}])
    with pytest.raises(DataError, match="same cases"):
        judge(LOWER, [])


def counted(calls: list[Setting]) -> Claim:
    def measure(setting: Setting) -> Cases:
        calls.append(setting)
        return cases(-0.1, setting.seed)

    return Claim("falls", "a paper", "nothing is trained.", (LOWER,), measure)


def test_what_was_measured_is_not_measured_again_and_the_page_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Setting] = []
    monkeypatch.setitem(registry.CLAIMS, "falls", counted(calls))
    out = tmp_path / "docs" / "objectives.md"
    bench_objectives(["falls"], 2, tmp_path / "work", None, out, 1.0, 1)
    bench_objectives(["falls"], 3, tmp_path / "work", None, out, 1.0, 1)
    assert [one.seed for one in calls] == [0, 1, 2]
    said = out.read_text(encoding="utf-8")
    assert "| loss falls | loss | new 1.8" in said and "3 x 300 | **holds** |" in said
    kept = json.loads((tmp_path / "work" / "falls" / "s1-x1" / "cases.json").read_text(encoding="utf-8"))
    assert judge(LOWER, [kept]).word == "holds"


def test_wrong_names_and_missing_data_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no claim 'magic'\. There are: combination"):
        bench_objectives(["magic"], 1, tmp_path, None, None, 1.0, 1)
    monkeypatch.setitem(registry.CLAIMS, "falls", replace(counted([]), needs_data=True))
    with pytest.raises(ConfigError, match="--data"):
        bench_objectives(["falls"], 1, tmp_path, None, None, 1.0, 1)
    monkeypatch.setitem(registry.CLAIMS, "falls", replace(counted([]), needs_package="no_such_model"))
    with pytest.raises(ConfigError, match="pip install --no-deps no-such-model"):
        bench_objectives(["falls"], 1, tmp_path, None, None, 1.0, 1)


def test_every_comparison_of_the_table_has_a_direction_and_words() -> None:
    assert page(list(registry.CLAIMS.values()), {}).startswith("# Objectives")
    for name, claim in registry.CLAIMS.items():
        assert claim.name == name and claim.source and claim.comparisons
        assert len({(one.figure, one.arm, one.against) for one in claim.comparisons}) == len(claim.comparisons)


def test_the_help_tells_every_claim() -> None:
    said = CliRunner().invoke(app, ["bench", "objectives", "--help"]).output
    assert all(f"{name}:" in said for name in registry.CLAIMS)

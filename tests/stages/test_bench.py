"""The bench of the preparation: both sizes measured, growth told against the text's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genai_core.stages.augment import STEPS
from genai_core.stages.bench import growth, main, table


def write_files(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        text = " ".join(
            f"Story {number} tells of a dog that ran {step} miles to house {number * step}." for step in range(30)
        )
        (folder / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    return folder


def test_a_tenth_and_the_whole_are_measured_by_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    main([str(write_files(tmp_path / "text", 300)), "--vocab", "320", "--json", str(out)])
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["whole"]["documents"] == 300 and found["part"]["documents"] == 30
    assert set(found["whole"]["seconds"]) == set(STEPS)
    printed = capsys.readouterr().out
    assert all(f"| {step} |" in printed for step in (*STEPS, "in all"))
    assert "bytes a byte of text" in printed


def test_growth_is_that_of_the_seconds_over_that_of_the_text() -> None:
    part = {"bytes": 1_000_000, "seconds": {"read": 1.0, "pack": 2.0}, "memory": 5_000_000}
    whole = {"bytes": 10_000_000, "seconds": {"read": 10.0, "pack": 40.0}, "memory": 10_000_000}
    found = {"part": part, "whole": whole, "profile": []}
    assert growth(found) == pytest.approx({"in all": 50 / 3 / 10, "memory": 0.2, "read": 1.0, "pack": 2.0})
    assert "| pack | 2.00 | 40.00 | 0.2 | 2.00 |" in table(found)


def test_what_cannot_be_measured_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = write_files(tmp_path / "few", 5)
    for given, words in ((str(few), "needs at least 10"), (str(tmp_path / "nowhere"), "no such folder")):
        with pytest.raises(SystemExit):
            main([given])
        assert words in capsys.readouterr().err

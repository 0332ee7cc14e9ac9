"""The page of a run: what is there is shown, what is gone is left out, what comes from data is escaped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from calling import call_genai

from genai_core.cli.report import find_report
from genai_core.config.settings import read_settings
from genai_core.errors import ConfigError
from tasks.charts import draw_curves, draw_stages, draw_transitions

REPORT: dict[str, Any] = {
    "recipe": "mine",
    "status": "failed",
    "seconds": 61.0,
    "stages": [
        {
            "name": "augment",
            "status": "computed",
            "seconds": 12.0,
            "forecast": {"seconds": 45.0},
            "artifact": {"kind": "dataset", "name": "mine-corpus", "version": "0a0b", "digest": "", "uri": ""},
            "metrics": {"documents": 1234.0},
        },
        {
            "name": "measure-g1",
            "status": "refused",
            "seconds": 3.0,
            "artifact": None,
            "metrics": {},
            "reasons": ["held-out loss: <script>alert(1)</script>"],
        },
    ],
    "model": None,
}


@pytest.fixture
def genai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        code, out, error = call_genai(monkeypatch, capsys, "report", *arguments)
        return code, out.strip(), error

    return call


def test_a_failed_run_whose_artifacts_are_gone_still_has_its_page(genai: Any, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(REPORT))
    code, out, _ = genai("r.json", "--out", "page.html")
    assert (code, out) == (0, "page.html")
    page = (tmp_path / "page.html").read_text()
    for part in ("mine", "failed", "mine-corpus@0a0b", "documents 1,234", "45 s", "Generation 1: not there any more"):
        assert part in page
    assert "<script" not in page and "&lt;script&gt;" in page


def test_the_newest_report_is_taken_and_a_name_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENAI_HOME", str(tmp_path))
    settings = read_settings()
    with pytest.raises(ConfigError, match="There is no report of 'any run'"):
        find_report("", settings)
    (tmp_path / "reports").mkdir()
    for name in ("20260101T000000Z-a", "20260102T000000Z-b"):
        (tmp_path / "reports" / f"{name}.json").write_text("{}")
    assert find_report("", settings).stem == "20260102T000000Z-b"
    assert find_report("20260101", settings).stem == "20260101T000000Z-a"
    with pytest.raises(ConfigError, match="20260102T000000Z-b"):
        find_report("2025", settings)


@pytest.mark.parametrize(
    ("content", "more", "words"),
    [
        ("{}", (), "is no report of a run"),
        ("no json", (), "is no report of a run"),
        ("{}", ("--out", "no/p.html"), "no folder"),
    ],
)
def test_wrong_input(genai: Any, tmp_path: Path, content: str, more: tuple[str, ...], words: str) -> None:
    (tmp_path / "r.json").write_text(content)
    code, _, err = genai("r.json", *more)
    assert code == 2 and words in err


def test_a_chart_is_the_same_bytes_again_and_draws_a_mean_through_many_points() -> None:
    curves = {"pretrain": [(step, 8.0 / step) for step in range(1, 200)], "tune": [(1, 2.0), (2, 1.5)]}
    svg = draw_curves("loss", curves)
    assert svg == draw_curves("loss", curves)
    assert svg.startswith("<svg")
    assert svg.count("<path") > draw_curves("loss", {"tune": curves["tune"]}).count("<path") + 2


def test_stages_and_transitions_are_drawn_with_their_figures() -> None:
    svg = draw_stages("bits", {"pretrain": 2.0, "train-control-1": 1.9, "train-g1": 1.8})
    assert svg == draw_stages("bits", {"pretrain": 2.0, "train-control-1": 1.9, "train-g1": 1.8})
    assert all(f"<!-- {word} -->" in svg for word in ("2.000", "1.900", "1.800", "train-g1"))
    told = {"arm": "after", "baseline": "before", "transitions": {"cc": 71, "ci": 3, "ic": 17, "ii": 9}}
    many = draw_transitions([{"moment": f"moment {index}", **told} for index in range(5)])
    assert all(many.count(f"<!-- {count} -->") == 5 for count in (71, 3, 17))
    assert many.count("<!-- moment ") == 5

"""The table at the end: where the terminal is narrow, only the figures give way."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from genai_core.cli.screen import STATUS_STYLE, Screen, end_table
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from tasks.figures import figures
from tasks.session import StageRow

REF = ArtifactRef(kind=ArtifactKind.MODEL, name="quickstart-base", version="0a1b2c3d", digest="0" * 64, uri="file:///x")
METRICS = {"eval_bits_per_byte": 1.7551, "3-gram_bits_per_byte": 1.6791, "5-gram_bits_per_byte": 1.5602, "steps": 600.0}
ROWS = [
    StageRow("augment", "computed", 12.3, REF, {"documents": 7076.0}),
    StageRow("pretrain", "computed", 135.0, REF, METRICS),
    StageRow("measure-correction", "refused", 1234.5, REF, METRICS),
]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_every_row_has_its_stage_status_and_seconds(width: int) -> None:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(end_table(ROWS, width))
    lines = console.export_text().splitlines()
    assert len(lines) == 4 and all(len(line) <= width for line in lines)
    assert lines[0].split()[:3] == ["stage", "status", "seconds"]
    for row, line in zip(ROWS, lines[1:], strict=True):
        assert line.split()[:3] == [row.name, row.status, f"{row.seconds:.1f}"]
    assert ("quickstart-base@0a1b2c3d" in lines[1]) is (width >= 120)


def test_the_yardstick_stands_beside_what_it_measures() -> None:
    assert figures(METRICS) == "bits per byte 1.755  3-gram 1.679  5-gram 1.56"
    assert figures({"eval/call/right": 0.25, "eval/text/bits_per_byte": 1.8}) == "bits per byte 1.8  call right 0.25"


def heard(width: int, is_terminal: bool, *events: dict[str, Any]) -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=is_terminal, color_system=None)
    screen = Screen(console)
    for event in events:
        screen.hear(event)
    if events[-1]["type"] == "journal":
        console.print(screen._draw())
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


PROGRESS = {
    "done": 120,
    "total": 600,
    "unit": "step",
    "tokens_per_second": 4217.3,
    "loss": 3.2154,
    "eta_seconds": 125.0,
}


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (140, "120/600 step  4,217 tok/s  loss 3.215  2 min 05 s left"),
        (80, "120/600 step  2 min 05 s left"),
        (60, "120/600 step"),
    ],
)
def test_the_live_line_leaves_out_whole_parts_and_cuts_none(width: int, words: str) -> None:
    (line,) = heard(
        width, True, {"type": "stage", "title": "measure-correction"}, {"type": "journal", "row": {"p": PROGRESS}}
    )
    assert len(line) <= width and line.rstrip().endswith(words) and "…" not in line


def test_a_figure_is_whole_or_left_out() -> None:
    (line,) = heard(80, True, {"type": "row", "row": ROWS[1]})
    assert "bits per byte 1.755" in line and "3-gram" not in line and "…" not in line


def test_a_long_reason_is_indented_on_a_terminal_and_one_line_in_a_file() -> None:
    event = {"type": "refused", "title": "measure-g1", "reasons": ["right answers " * 9 + "fell"]}
    on_terminal = heard(80, True, event)
    assert len(on_terminal) == 2 and all(line.startswith("    ") and len(line) <= 80 for line in on_terminal)
    (in_file,) = heard(80, False, event)
    assert in_file.startswith("    refused: right answers") and in_file.endswith("fell")


def test_an_interrupted_stage_is_not_called_failed_and_keeps_its_column() -> None:
    lines = heard(
        100, False, *({"type": "row", "row": StageRow("a", status, 3.0)} for status in ("interrupted", "failed"))
    )
    assert [line.split()[1] for line in lines] == ["interrupted", "failed"]
    assert len({line.index("3.0 s") for line in lines}) == 1
    assert set(STATUS_STYLE) >= {"computed", "reused", "refused", "skipped", "interrupted", "failed"}
    assert not {"white", "black"} & set(STATUS_STYLE.values()), "invisible on one of the two backgrounds"


def test_a_long_name_does_not_run_into_its_status() -> None:
    row = StageRow("compose-masked_lm-refill-punctuation-0.3", "computed", 1.0, REF)
    [line] = heard(120, False, {"type": "row", "row": row})
    assert line.split()[:2] == [row.name, "computed"]


def test_a_lost_try_says_of_which_stage_and_why() -> None:
    [line] = heard(120, False, {"type": "lost", "title": "pretrain", "reason": "The Ray job server does not answer."})
    assert line.strip() == "pretrain: The Ray job server does not answer."

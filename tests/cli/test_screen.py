"""The table at the end: where the terminal is narrow, only the figures give way."""

from __future__ import annotations

import pytest
from rich.console import Console

from genai_core.cli.screen import end_table
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

"""The journal: any crash point, any resume, neither gap nor double."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genai_core.tracking.journal import Journal, parse_row

STEPS = 12


def history(path: Path) -> Counter[tuple[str, int]]:
    rows = [parse_row(line) for line in path.read_bytes().split(b"\n")]
    return Counter((name, row["step"]) for row in rows if row for name in row.get("m", ()))


def train(path: Path, start: int, stop: int, every: int) -> dict[int, int]:
    """Return the size of the journal at every checkpoint made on the way."""
    journal = Journal(path)
    sizes = {}
    for step in range(start, stop):
        journal.metrics(step, {"loss": 1.0 / (step + 1), "räte": 3.0 * step})
        journal.progress(step, STEPS, "step", loss=float("nan"))
        if (step + 1) % every == 0:
            journal.sync()
            sizes[step + 1] = path.stat().st_size
    journal.close()
    return sizes


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    crashes=st.lists(st.tuples(st.integers(1, STEPS), st.floats(0, 1)), max_size=4),
    every=st.integers(1, 5),
)
def test_any_crash_point_leaves_neither_gap_nor_double(
    tmp_path: Path, crashes: list[tuple[int, float]], every: int
) -> None:
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    checkpoint, safe = 0, 0
    for died_at, share in crashes:
        sizes = train(path, checkpoint, max(died_at, checkpoint), every)
        if sizes:
            checkpoint = max(sizes)
            safe = sizes[checkpoint]
        # a machine that lost power keeps what was synced, and any number of bytes of the rest
        size = path.stat().st_size if path.exists() else 0
        if size:
            with path.open("r+b") as handle:
                handle.truncate(safe + round(share * (size - safe)))
    train(path, checkpoint, STEPS, every)
    assert history(path) == Counter({(name, step): 1 for name in ("loss", "räte") for step in range(STEPS)})


def test_a_journal_cut_before_its_checkpoint_would_have_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    sizes = train(path, 0, 8, every=4)
    with path.open("r+b") as handle:
        handle.truncate(sizes[4])
    train(path, 8, STEPS, every=4)
    assert ("loss", 7) not in history(path)  # why `sync` comes before the checkpoint


def test_a_second_writer_after_a_torn_line_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    driver = Journal(path)
    driver.event("began")
    with path.open("ab") as dying_worker:
        dying_worker.write(b'{"t": 1, "step": 0, "m": {"lo')
    driver.event("a worker was lost")
    rows = [parse_row(line) for line in path.read_bytes().splitlines()]
    assert [row and row["e"] for row in rows] == ["began", None, "a worker was lost"]
    Journal(path).metrics(0, {"loss": 1.0})
    assert history(path) == {("loss", 0): 1}


def test_what_is_not_finite_is_no_point_of_a_curve_and_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.metrics(3, {"loss": float("nan"), "rate": float("inf"), "good": 2.0})
    journal.metrics(4, {"loss": float("nan")})
    journal.metrics(5, {"loss": 1.0})
    journal.progress(3, 10, "step", loss=float("nan"))
    journal.event("skipped a step", loss=float("inf"), rows=[1, 2], where=Path("x"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row.get("m") for row in rows] == [{"good": 2.0}, {"loss": 1.0}, None, None]
    assert rows[2]["p"] == {"done": 3, "total": 10, "unit": "step", "loss": "nan"}
    assert rows[3]["d"] == {"loss": "inf", "rows": [1, 2], "where": "x"}


def test_a_metric_is_recorded_once_a_step_and_names_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for name, step in (("a", 1), ("b", 0), ("a", 1), ("a", 0), ("b", 1), ("a", 2)):
        journal.metrics(step, {name: float(step)})
    assert history(path) == {("a", 1): 1, ("a", 2): 1, ("b", 0): 1, ("b", 1): 1}


def test_a_full_disk_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genai_core.errors import DiskFullError

    journal = Journal(tmp_path / "journal.jsonl")

    class Full:
        def write(self, data: bytes) -> int:
            return len(data) // 2

        def fileno(self) -> int:
            return handle.fileno()

    handle = journal._file
    monkeypatch.setattr(journal, "_file", Full())
    with pytest.raises(DiskFullError, match="No space left"):
        journal.metrics(0, {"loss": 1.0})
    handle.close()

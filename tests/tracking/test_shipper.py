"""Shipping: late, never wrong. Against a real SQLite MLflow that can be taken away."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from genai_core.tracking.journal import JOURNAL, Journal
from genai_core.tracking.runs import Tracker
from genai_core.tracking.shipper import Acknowledged, Shipper, read_rows, replay_journal
from tests.tracking.losing import Losable, expected, history, wait_for, write


def test_rows_arrive_while_they_are_written_with_their_own_time(tracker: Tracker, tmp_path: Path) -> None:
    run_id = tracker.stage_run("k" * 64, "pretrain")
    path = tmp_path / JOURNAL
    journal = Journal(path)
    seen: list[dict[str, Any]] = []
    journal.event("told by an earlier attempt")
    shipper = Shipper(path, tracker, run_id, seen.append, every_seconds=0.05, look_seconds=0.02).start()
    for step in range(50):
        journal.metrics(step, {"train/loss": 1.0 / (step + 1)})
        journal.progress(step + 1, 50, "step")
    wait_for(lambda: len(history(tracker, run_id)) == 50)
    journal.metrics(50, {"train/loss": 1.0 / 51})
    journal.event("the end")
    assert shipper.close(20)
    assert history(tracker, run_id) == expected(range(51))
    assert [row["p"]["done"] for row in seen if "p" in row] == list(range(1, 51))
    assert [row["e"] for row in seen if "e" in row] == ["the end"]
    written = {row["step"]: row["t"] for line in path.read_text().splitlines() if "m" in (row := json.loads(line))}
    shipped = {row.step: row.timestamp for row in tracker.client.get_metric_history(run_id, "train/loss")}
    assert shipped == written


def test_a_crash_between_sending_and_acknowledging_doubles_nothing(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = tracker.stage_run("k" * 64, "pretrain")
    path = tmp_path / JOURNAL
    write(path, range(700))  # 1,400 points: two requests

    dead = threading.Event()

    def die(self: Acknowledged, offset: int) -> None:
        dead.set()
        raise SystemError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(Acknowledged, "advance", die)
        shipper = Shipper(path, tracker, run_id).start()
        assert dead.wait(60)
        assert not shipper.close(0.5)
    first = len(history(tracker, run_id))
    assert 0 < first < 700
    assert not (tmp_path / "journal.ack").exists()
    for _ in range(2):  # and a replay of everything
        assert replay_journal(path, tracker, run_id)
        assert history(tracker, run_id) == expected(range(700))
        (tmp_path / "journal.ack").unlink()
    # what it would be if the rows did not keep their time
    tracker.log_points(run_id, [("train/loss", 1.0, 1, 0)])
    assert len(history(tracker, run_id)) == 701


def test_mlflow_lost_in_the_middle_and_back_again(losable: Losable, tmp_path: Path) -> None:
    run_id = losable.stage_run("k" * 64, "pretrain")
    path = tmp_path / JOURNAL
    shipper = Shipper(path, losable, run_id, every_seconds=0.05, look_seconds=0.02).start()
    write(path, range(20))
    wait_for(lambda: not Acknowledged(path).is_behind() and path.exists())
    losable.away = True
    write(path, range(20, 40))
    wait_for(lambda: shipper.error is not None)
    losable.away = False
    assert len(history(losable, run_id)) == 20
    losable.away = True
    calls = losable.calls
    time.sleep(0.5)
    assert losable.calls - calls < 10  # it waits longer each time
    losable.away = False
    write(path, range(40, 60))
    assert shipper.close(20)
    assert shipper.error is None
    assert history(losable, run_id) == expected(range(60))


def test_closing_while_mlflow_is_away_keeps_the_deadline_and_the_rows(losable: Losable, tmp_path: Path) -> None:
    run_id = losable.stage_run("k" * 64, "pretrain")
    path = tmp_path / JOURNAL
    losable.away = True
    shipper = Shipper(path, losable, run_id).start()
    write(path, range(30))
    began = time.monotonic()
    assert not shipper.close(1.0)
    assert time.monotonic() - began < 3.0
    losable.away = False
    assert replay_journal(path, losable, run_id)
    assert history(losable, run_id) == expected(range(30))


def test_a_request_that_hangs_does_not_hold_the_run(tracker: Tracker, tmp_path: Path) -> None:
    release = threading.Event()

    class Hanging(Tracker):
        def log_points(self, run_id: str, points: list[tuple[str, float, int, int]]) -> None:
            release.wait(20)

    path = tmp_path / JOURNAL
    write(path, range(3))
    shipper = Shipper(path, Hanging(tracker.uri), "r").start()
    began = time.monotonic()
    assert not shipper.close(0.5)
    assert time.monotonic() - began < 3.0
    release.set()
    wait_for(lambda: not shipper._thread.is_alive())


def test_another_server_gets_the_whole_journal(tracker: Tracker, tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    write(path, range(10))
    runs = [tracker.stage_run(key * 64, "x") for key in "ab"]
    for run_id in runs:
        assert replay_journal(path, tracker, run_id)
        assert history(tracker, run_id) == expected(range(10))


def test_torn_lines_are_passed_over_and_a_screen_that_fails_stops_nothing(tracker: Tracker, tmp_path: Path) -> None:
    run_id = tracker.stage_run("k" * 64, "pretrain")
    path = tmp_path / JOURNAL

    def broken(row: dict[str, Any]) -> None:
        raise RuntimeError("cannot draw")

    shipper = Shipper(path, tracker, run_id, broken, look_seconds=0.02).start()
    write(path, range(2))
    with path.open("ab") as handle:
        handle.write(b'{"t": 5, "st')
    journal = Journal(path)
    journal.event("resumed")
    journal.metrics(2, {"train/loss": 1.0 / 3})
    with path.open("ab") as handle:
        handle.write(b'{"t": 6')  # still being written
    assert shipper.close(20)
    assert history(tracker, run_id) == expected(range(3))
    rows, offset = read_rows(path, 0, limit=16)  # also in pieces
    while more := read_rows(path, offset, limit=16)[0]:
        rows += more
        offset = more[-1][0]
    assert Counter(row.get("step") for _, row in rows if "m" in row) == {0: 1, 1: 1, 2: 1}


def test_shipping_a_thousand_metrics_costs_little(tracker: Tracker, tmp_path: Path) -> None:
    """1,000 points a second must not take the core that trains: measured 0.15 s of it, three times that is refused."""
    run_id = tracker.stage_run("k" * 64, "pretrain")
    path = tmp_path / JOURNAL
    journal = Journal(path)
    began = time.thread_time()
    for step in range(300):
        journal.metrics(step, {f"m{i}": step + i / 10 for i in range(10)})
    per_row = (time.thread_time() - began) / 300
    assert per_row < 1e-3  # on the step path: 10 metrics in well under a millisecond
    began = time.thread_time()  # its own: what other tests' threads do meanwhile is not the shipper's
    assert replay_journal(path, tracker, run_id)
    assert (time.thread_time() - began) / 3 < 0.5

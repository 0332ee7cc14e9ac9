"""What MLflow has not been told is told by the run that made it, as soon as MLflow is back, and not only by the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

import tasks.outbox
from genai_core.errors import StorageError
from genai_core.storage.artifact import ArtifactRef
from genai_core.tracking.recording import Recording, RunRecord, pending
from genai_core.tracking.runs import Tracker
from tasks.outbox import Outbox
from tests.tracking.losing import Losable


@pytest.fixture
def losable(losable: Losable, monkeypatch: pytest.MonkeyPatch) -> Losable:
    """Nothing of a session but where its folders lie counts here; MLflow is a real one."""
    losable.away = True
    monkeypatch.setattr(tasks.outbox, "_tracker", lambda session: losable)
    return losable


def session_in(folder: Path, told: list[str]) -> Any:
    return SimpleNamespace(
        store=SimpleNamespace(objects=SimpleNamespace(local_path=lambda name: folder / name)),
        settings=SimpleNamespace(scratch=folder),
        on_event=lambda event: told.append(event["row"]["e"]),
        should_stop=lambda: False,
    )


def end(tracker: Tracker, folder: Path, key: str, status: str, ref: Callable[..., ArtifactRef]) -> None:
    """Let a stage begin and end while MLflow is away."""
    record = RunRecord(stage_key=key * 64, title=f"stage-{key}")
    assert (
        not Recording(tracker, folder / "work" / key, record)
        .start()
        .finish(status, metrics={"bpb": 1.5}, artifact=ref("model"), deadline_seconds=0.2)
    )


def status_of(tracker: Losable, key: str) -> list[str]:
    tracker.away = False
    return [run.info.status for run in tracker._search("genai.stage_key", key * 64)]


def test_it_is_told_while_the_run_goes_on(losable: Losable, tmp_path: Path, ref: Callable[..., ArtifactRef]) -> None:
    told: list[str] = []
    end(losable, tmp_path, "a", "FINISHED", ref)
    outbox = Outbox(session_in(tmp_path, told), every_seconds=0.05).start()
    deadline = time.monotonic() + 20
    while not told:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    assert len(told) == 1, "the same reason is told once"
    end(losable, tmp_path, "b", "FINISHED", ref)
    losable.away = False
    while list(pending(tmp_path / "work")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    outbox.close(20)
    assert status_of(losable, "a") == status_of(losable, "b") == ["FINISHED"]
    assert not list((tmp_path / "work").iterdir()), "a workspace whose end has been told is of no use"


def test_the_last_is_told_at_the_end_and_a_failed_stage_by_its_next_attempt(
    losable: Losable, tmp_path: Path, ref: Callable[..., ArtifactRef]
) -> None:
    end(losable, tmp_path, "0", "FINISHED", ref)
    losable.away = False
    outbox = Outbox(session_in(tmp_path, []), every_seconds=3600).start()
    deadline = time.monotonic() + 20
    while (tmp_path / "work" / "0").exists():  # its first look
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.1)
    losable.away = True
    end(losable, tmp_path, "a", "FINISHED", ref)
    end(losable, tmp_path, "b", "FAILED", ref)
    losable.away = False
    outbox.close(20)
    assert [folder.name for folder in pending(tmp_path / "work")] == ["b"]
    assert (status_of(losable, "a"), status_of(losable, "b")) == (["FINISHED"], [])
    Outbox(session_in(tmp_path, [])).start().close(20)
    assert status_of(losable, "b") == ["FAILED"], "the next run tells whatever has ended"
    assert (tmp_path / "work" / "b").exists(), "and leaves the workspace that a next attempt goes on from"


def test_what_mlflow_refuses_for_good_holds_up_nothing_else(
    losable: Losable, tmp_path: Path, ref: Callable[..., ArtifactRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    for key in "ab":
        end(losable, tmp_path, key, "FINISHED", ref)
    losable.away = False
    send = tasks.outbox.replay

    def refuse(folder: Path, tracker: Tracker) -> bool:
        if folder.name == "a":
            raise StorageError("a name that it does not take")
        return send(folder, tracker)

    monkeypatch.setattr(tasks.outbox, "replay", refuse)
    monkeypatch.setattr(tasks.outbox, "end_deserted", Mock(side_effect=OSError(28, "No space left on device")))
    Outbox(session_in(tmp_path, told)).start().close(20)
    assert (status_of(losable, "a"), status_of(losable, "b")) == ([], ["FINISHED"])
    assert ["No space left" in told[0], "does not take" in told[1]] == [True, True]


def test_an_mlflow_that_stays_away_holds_no_run_longer_than_its_deadline(
    losable: Losable, tmp_path: Path, ref: Callable[..., ArtifactRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    end(losable, tmp_path, "a", "FINISHED", ref)
    monkeypatch.setattr(tasks.outbox, "replay", lambda *_: time.sleep(3))
    began = time.monotonic()
    outbox = Outbox(cast("Any", session_in(tmp_path, []))).start()
    outbox.close(0.2)
    assert time.monotonic() - began < 2

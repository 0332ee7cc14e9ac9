"""The MLflow run of a stage: whole in the end, once, whoever was away or killed. Against a real SQLite MLflow."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from genai_core.errors import TransientError
from genai_core.storage.artifact import ArtifactRef
from genai_core.tracking.journal import JOURNAL, Journal
from genai_core.tracking.recording import (
    RECORD,
    Recording,
    RunRecord,
    end_deserted,
    pending,
    read_record,
    remove_told,
    replay,
    settle,
)
from genai_core.tracking.runs import Tracker
from tests.tracking.losing import Losable, expected, history, wait_for, write


def record(**values: Any) -> RunRecord:
    return RunRecord(stage_key="k" * 64, title="pretrain", config={"steps": 3}, **values)


def test_a_stage_that_begins_and_ends_while_mlflow_is_away_is_told_later(
    losable: Losable, tmp_path: Path, ref: Callable[..., ArtifactRef]
) -> None:
    parent = losable.parent_run("flow", "quickstart")
    losable.away = True
    work = tmp_path / "work" / "key"
    write(work / JOURNAL, range(5))
    report = tmp_path / "report.json"
    report.write_text("{}")
    recording = Recording(losable, work, record(parent_run_id=parent, inputs={"corpus": ref()})).start()
    recording.link_reused("augment", ref("other"))
    done = recording.finish(
        "FINISHED", metrics={"bpb": 1.5}, artifact=ref("model"), files={"": [report]}, deadline_seconds=0.5
    )
    assert not done
    assert recording.run_id == ""
    assert "away" in str(recording.error)
    ended = read_record(work)
    assert ended is not None
    assert list(pending(tmp_path / "work")) == [work]
    report.unlink()
    with pytest.raises(TransientError):
        replay(work, losable)

    losable.away = False
    for _ in range(2):  # the second adds nothing
        assert replay(work, losable)
        runs = losable.client.search_runs([losable.experiment_id], f"tags.mlflow.parentRunId = '{parent}'")
        assert len(runs) == 1
        run = losable.client.get_run(runs[0].info.run_id)
        assert run.info.status == "FINISHED"
        assert run.info.end_time == ended.ended_ms
        assert run.data.params == {"steps": "3"}
        assert run.data.tags["genai.artifact"] == ref("model").label()
        assert run.data.tags["reused.augment"] == ref("other").label()
        assert len(run.inputs.dataset_inputs) == 1
        assert {row.path for row in losable.client.list_artifacts(run.info.run_id)} == {"config.json", "report.json"}
        assert history(losable, run.info.run_id) == expected(range(5))
        assert len(losable.client.get_metric_history(run.info.run_id, "bpb")) == 1
    assert list(pending(tmp_path / "work")) == []


def test_a_killed_stage_goes_on_in_the_same_run(tracker: Tracker, tmp_path: Path) -> None:
    work = tmp_path / "work"
    first = Recording(tracker, work, record()).start(wait_seconds=20)
    write(work / JOURNAL, range(10))
    wait_for((work / "journal.ack").exists)
    first._shipper.close(0)  # the driver is gone, nobody has said finish
    again = read_record(work)
    assert again is not None
    assert again.status == "RUNNING"
    second = Recording(tracker, work, record(parent_run_id=tracker.parent_run("flow-2", "x"))).start()
    write(work / JOURNAL, range(7, 20))  # resumed from a checkpoint at step 7
    assert second.finish("FINISHED")
    assert second.run_id == first.run_id != ""
    assert history(tracker, second.run_id) == expected(range(20))
    assert len(tracker._search("genai.stage_key", "k" * 64)) == 1


def test_a_disk_too_full_to_say_so_leaves_the_run_to_be_settled(
    losable: Losable, tmp_path: Path, ref: Callable[..., ArtifactRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    work = tmp_path / "work" / "key"
    recording = Recording(losable, work, record()).start(wait_seconds=20)
    with monkeypatch.context() as full:
        full.setattr("genai_core.tracking.recording.write_record", refuse)
        assert not recording.finish("FINISHED", metrics={"bpb": 1.5}, artifact=ref("model"), deadline_seconds=2)
    assert losable.client.get_run(recording.run_id).info.status == "RUNNING"
    assert settle(work, losable, ref("model"), {"bpb": 1.5})  # its lock is given up, too
    assert losable.client.get_run(recording.run_id).info.status == "FINISHED"
    with monkeypatch.context() as broken, pytest.raises(PermissionError):
        broken.setattr("genai_core.tracking.recording.write_record", Mock(side_effect=PermissionError))
        Recording(losable, tmp_path / "other", record()).finish("FINISHED", deadline_seconds=0)


def test_a_stage_killed_between_publishing_and_saying_so_is_settled(
    losable: Losable, tmp_path: Path, ref: Callable[..., ArtifactRef]
) -> None:
    work = tmp_path / "work" / "key"
    killed = Recording(losable, work, record()).start(wait_seconds=20)
    write(work / JOURNAL, range(5))
    assert list(pending(tmp_path / "work")) == []  # for all we know it is alive
    # another run has seen what it published, and comes before it has said so
    assert not settle(work, losable, ref("model"), {"bpb": 1.5})
    assert not replay(work, losable)
    assert losable.client.get_run(killed.run_id).info.status == "RUNNING"
    killed.abandon()  # lets go of its lock, as a killed process does
    losable.away = True
    with pytest.raises(TransientError):
        settle(work, losable, ref("model"), {"bpb": 1.5})
    losable.away = False
    for _ in range(2):
        assert settle(work, losable, ref("model"), {"bpb": 1.5})
        run = losable.client.get_run(killed.run_id)
        assert (run.info.status, run.data.metrics["bpb"]) == ("FINISHED", 1.5)
        assert run.data.tags["genai.artifact"] == ref("model").label()
        assert history(losable, killed.run_id) == expected(range(5))
    assert not settle(tmp_path / "none", losable, ref("model"), {})


def test_the_run_of_a_flow_that_died_without_a_word_is_ended_by_the_next(tracker: Tracker, tmp_path: Path) -> None:
    def flow(name: str) -> Recording:
        record = RunRecord(flow_run_id=name, title="quickstart")
        return Recording(tracker, tmp_path / "flows" / name, record).start(wait_seconds=20)

    dead, alive = flow("dead"), flow("alive")
    stage = Recording(tracker, tmp_path / "flows" / "stage", record()).start(wait_seconds=20)
    dead.abandon()  # lets go of its lock, as a killed process does
    stage.abandon()
    before = time.time()
    end_deserted(tmp_path / "flows")
    assert [path.name for path in pending(tmp_path / "flows")] == ["dead"]
    assert replay(tmp_path / "flows" / "dead", tracker)
    found = {one.run_id: tracker.client.get_run(one.run_id).info for one in (dead, alive, stage)}
    assert [info.status for info in found.values()] == ["KILLED", "RUNNING", "RUNNING"]
    assert found[dead.run_id].end_time <= 1000 * before, "it ended with its last sign of life"
    alive.finish()


def test_an_attempt_that_lost_its_claim_leaves_the_run_alone(tracker: Tracker, tmp_path: Path) -> None:
    work = tmp_path / "work" / "key"
    superseded = Recording(tracker, work, record()).start(wait_seconds=20)
    other = Recording(tracker, work, record()).start(wait_seconds=20)
    write(work / JOURNAL, range(5))
    assert other.finish("FINISHED")
    superseded.abandon()
    assert other.run_id == superseded.run_id
    assert tracker.client.get_run(other.run_id).info.status == "FINISHED"
    assert history(tracker, other.run_id) == expected(range(5))


def test_a_late_answer_does_not_undo_the_end(tracker: Tracker, tmp_path: Path) -> None:
    """The thread that opens the run hangs; the stage ends meanwhile; then the answer comes."""
    release = threading.Event()

    class Slow(Tracker):
        def stage_run(self, *arguments: Any, **more: Any) -> str:
            release.wait(20)
            return super().stage_run(*arguments, **more)

    recording = Recording(Slow(tracker.uri), tmp_path / "work", record()).start()
    assert not recording.finish("FAILED", deadline_seconds=0.2)
    release.set()
    wait_for(lambda: not recording._shipper._thread.is_alive())
    told = read_record(tmp_path / "work")
    assert told is not None
    assert (told.status, bool(told.run_id)) == ("FAILED", True)
    assert replay(tmp_path / "work", tracker)
    assert tracker.client.get_run(told.run_id).info.status == "FAILED"


@pytest.mark.parametrize("late", [False, True])
def test_a_request_sent_twice_leaves_one_run(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """A server that stood still answers too late; the request is sent again and both are carried out, in any order."""
    create, asked = tracker.client.create_run, []

    def twice(*arguments: Any, **more: Any) -> Any:
        asked.append((arguments, {**more, "start_time": 1001}))  # a millisecond or none: the oldest is the one answered
        if not late:
            create(*asked[-1][0], **asked[-1][1])
        return create(*arguments, **{**more, "start_time": 1000})

    monkeypatch.setattr(tracker.client, "create_run", twice)
    recordings = [
        Recording(tracker, tmp_path / "work", record()).start(wait_seconds=20),
        Recording(tracker, tmp_path / "flow", RunRecord(flow_run_id="f", title="quickstart")).start(wait_seconds=20),
    ]
    assert len(asked) == 2
    if late:
        for arguments, more in asked:
            create(*arguments, **more)
    assert all(one.finish("FINISHED", metrics={"bpb": 1.5}, deadline_seconds=60) for one in recordings)
    for (tag, value), one in zip((("genai.stage_key", "k" * 64), ("genai.flow_run_id", "f")), recordings, strict=True):
        assert [(run.info.run_id, run.info.status) for run in tracker._search(tag, value)] == [(one.run_id, "FINISHED")]


def test_who_begins_again_waits_while_the_end_before_is_sent(
    tracker: Tracker, tmp_path: Path, ref: Callable[..., ArtifactRef]
) -> None:
    """An outbox sends how a stage ended; the stage is computed anew meanwhile, in the same folder."""
    entered, release = threading.Event(), threading.Event()

    class Slow(Tracker):
        def log_summary(self, *arguments: Any, **more: Any) -> None:
            entered.set()
            release.wait(20)
            super().log_summary(*arguments, **more)

    work = tmp_path / "work" / "key"
    first = Recording(Losable(tracker.uri), work, record())
    first._tracker.away = True  # type: ignore[union-attr]
    assert not first.start().finish("FINISHED", metrics={"bpb": 1.5}, artifact=ref("model"), deadline_seconds=0.2)

    def send() -> None:
        assert replay(work, Slow(tracker.uri))
        remove_told(work)

    sender = threading.Thread(target=send)
    sender.start()
    assert entered.wait(20)
    second = Recording(tracker, work, record())
    beginner = threading.Thread(target=second.start)
    beginner.start()
    time.sleep(0.3)
    assert beginner.is_alive(), "the folder is another's for now"
    release.set()
    sender.join(20)
    beginner.join(20)
    told = read_record(work)
    assert told is not None and told.status == "RUNNING", "neither removed nor taken for the one before"
    assert list(pending(tmp_path / "work")) == []
    assert second.finish("FINISHED", metrics={"bpb": 1.4}, deadline_seconds=30)
    remove_told(work)
    assert not work.exists()


def test_a_run_that_was_written_to_is_no_double(tracker: Tracker) -> None:
    ours, other, double = (
        tracker.client.create_run(tracker.experiment_id, tags={"genai.stage_key": "k" * 64}).info.run_id for _ in "abc"
    )
    tracker.log_params(other, {"steps": 3})
    tracker.delete_doubles("genai.stage_key", "k" * 64, ours)
    assert {run.info.run_id for run in tracker._search("genai.stage_key", "k" * 64)} == {ours, other}
    assert tracker.client.get_run(double).info.lifecycle_stage == "deleted"


def test_without_tracking_only_the_screen_is_served(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    recording = Recording(None, tmp_path / "work", record(), seen.append).start()
    Journal(tmp_path / "work" / JOURNAL).event("hello")
    assert recording.finish("FINISHED", metrics={"a": 1.0})
    assert [row["e"] for row in seen] == ["hello"]
    assert (tmp_path / "work" / RECORD).exists()

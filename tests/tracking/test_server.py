"""A real MLflow server, killed in the middle of a run and started again; and a folder fetched through it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.tracking.connection import check_reachable
from genai_core.tracking.journal import JOURNAL, Journal
from genai_core.tracking.quiet import SETTINGS
from genai_core.tracking.recording import Recording, RunRecord, pending, replay
from genai_core.tracking.registry import Registry
from genai_core.tracking.runs import Tracker

pytestmark = pytest.mark.platform


class Server:
    """One server on its own port; the port stays the same through a restart."""

    def __init__(self, folder: Path, database: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder, self._database = folder, database
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        arguments += ["--backend-store-uri", f"sqlite:///{self._database}"]
        arguments += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *arguments],
                cwd=self._folder,
                env={**os.environ, **SETTINGS, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        check_reachable(self.uri, seconds=90)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(uri: str, tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path, Path(uri.removeprefix("sqlite:///")))
    one.start()
    yield one
    one.kill()


def history(tracker: Tracker, run_id: str) -> list[int]:
    return sorted(row.step for row in tracker.client.get_metric_history(run_id, "train/loss"))


def test_killed_and_restarted_in_the_middle_of_a_run(server: Server, tmp_path: Path) -> None:
    tracker = Tracker(server.uri, artifact_root=tmp_path / "ours")
    kept = tracker.client.get_experiment(tracker.experiment_id).artifact_location
    assert kept.startswith("mlflow-artifacts:"), "where the server keeps files, not in a folder of the client's"
    work = tmp_path / "work" / "key"
    record = RunRecord(stage_key="k" * 64, title="pretrain", config={"steps": 3})
    recording = Recording(tracker, work, record).start(wait_seconds=30)
    assert recording.run_id
    journal = Journal(work / JOURNAL)
    slowest = 0.0
    for step in range(1500):
        if step == 500:
            server.kill()
        if step == 1000:
            server.start()
        began = time.monotonic()
        journal.metrics(step, {"train/loss": 1.0 / (step + 1)})
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.002)
    assert slowest < 0.5  # never the 10 s of a time-out
    assert recording.finish("FINISHED", metrics={"bpb": 1.5}, deadline_seconds=60), recording.error
    assert history(tracker, recording.run_id) == list(range(1500))
    assert tracker.client.get_run(recording.run_id).info.status == "FINISHED"


def test_gone_at_the_end_and_replayed_then_registered(server: Server, tmp_path: Path) -> None:
    tracker = Tracker(server.uri)
    work = tmp_path / "work" / "key"
    artifact = ArtifactRef(kind=ArtifactKind.MODEL, name="m", version="k", digest="d" * 64, uri="/m", key="k" * 64)
    recording = Recording(tracker, work, RunRecord(stage_key="k" * 64, title="pretrain")).start(wait_seconds=30)
    server.kill()
    journal = Journal(work / JOURNAL)
    for step in range(100):
        journal.metrics(step, {"train/loss": 1.0})
    report = tmp_path / "report.json"
    report.write_text("{}")
    began = time.monotonic()
    assert not recording.finish("FINISHED", artifact=artifact, files={"": [report]}, deadline_seconds=3)
    assert time.monotonic() - began < 8
    assert list(pending(tmp_path / "work")) == [work]
    server.start()
    assert replay(work, tracker)
    assert replay(work, tracker)
    assert history(tracker, recording.run_id) == list(range(100))
    assert [row.path for row in tracker.client.list_artifacts(recording.run_id)] == ["report.json"]
    assert list(pending(tmp_path / "work")) == []

    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(os.urandom(1 << 20))
    registry = Registry(server.uri)
    for _ in range(2):
        version = registry.promote_version("pydocs", model, "", artifact, metrics={"bpb": 1.5}, card="# card\n")
        assert (version.version, version.run_id) == ("1", recording.run_id)
    assert registry.move_champion("pydocs", "1").moved
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts("models:/pydocs@champion", dst_path=str(tmp_path / "fetched")))
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert (folder / "README.md").read_text() == "# card\n"

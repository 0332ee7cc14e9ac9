"""Runs on a real SQLite MLflow: found by key, opened again, described once, linked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from genai_core.errors import ConfigError, StorageError
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.tracking.runs import Tracker

Ref = Callable[..., ArtifactRef]


def test_a_parent_with_its_children(tracker: Tracker, tmp_path: Path, ref: Ref) -> None:
    parent = tracker.parent_run("flow-1", "quickstart", {"git.commit": "abc123", "prefect.flow_run_id": "flow-1"})
    assert tracker.parent_run("flow-1", "quickstart") == parent
    children = [tracker.stage_run(key * 64, title, parent) for key, title in (("a", "augment"), ("b", "pretrain"))]
    report = tmp_path / "report.json"
    report.write_text("{}")
    for child in children:
        tracker.log_params(child, {"steps": 3})
        tracker.log_inputs(child, {"corpus": ref("corpus"), "base": ref("base", kind=ArtifactKind.MODEL)})
        tracker.log_files(child, [report])
        tracker.finish(child)
    tracker.finish(parent)
    found = tracker.client.search_runs([tracker.experiment_id], f"tags.mlflow.parentRunId = '{parent}'")
    assert {run.info.run_id for run in found} == set(children)
    assert {run.info.run_name for run in found} == {"augment", "pretrain"}
    assert all(run.info.status == "FINISHED" for run in found)
    run = tracker.client.get_run(children[1])
    assert run.data.params == {"steps": "3"}
    assert {(row.dataset.name, row.dataset.digest) for row in run.inputs.dataset_inputs} == {
        (ref("corpus").label(), ref("corpus").digest[:36]),
        (ref("base").label(), ref("base").digest[:36]),
    }
    assert {row.path for row in tracker.client.list_artifacts(children[1])} == {"config.json", "report.json"}
    assert tracker.client.get_run(parent).data.tags["mlflow.source.git.commit"] == "abc123"
    assert (tmp_path / "mlartifacts").is_dir()


def test_a_crashed_stage_is_opened_again_under_the_new_flow(tracker: Tracker) -> None:
    first, second = tracker.parent_run("flow-1", "x"), tracker.parent_run("flow-2", "x")
    begun = tracker.stage_run("k" * 64, "pretrain", first)
    tracker.finish(begun, "FAILED")
    again = tracker.stage_run("k" * 64, "pretrain", second, {"attempt": "2"})
    assert again == begun
    run = tracker.client.get_run(begun)
    assert run.info.status == "RUNNING"
    assert run.data.tags["mlflow.parentRunId"] == second
    assert run.data.tags["genai.earlier_parent"] == first
    assert run.data.tags["attempt"] == "2"


def test_a_refreshed_stage_gets_a_run_of_its_own(tracker: Tracker) -> None:
    first = tracker.stage_run("k" * 64, "pretrain")
    assert tracker.find_stage_run("k" * 64) == first
    tracker.finish(first)
    second = tracker.stage_run("k" * 64, "pretrain")
    assert second != first  # its curves would otherwise run over those of the first
    assert tracker.find_stage_run("k" * 64) == first  # finished before begun
    tracker.finish(second)
    assert tracker.find_stage_run("k" * 64) == second
    assert tracker.find_stage_run("z" * 64) is None


def test_of_two_that_create_at_once_the_oldest_run_stays(tracker: Tracker) -> None:
    other = Tracker(tracker.uri, "genai")
    search, raced = tracker._search, []

    def search_then_lose_the_race(tag: str, value: str, experiments: list[str] | None = None) -> list[object]:
        found = search(tag, value, experiments)
        if not raced:
            raced.append(other.stage_run("k" * 64, "pretrain"))
        return found

    tracker._search = search_then_lose_the_race  # type: ignore[method-assign]
    assert tracker.stage_run("k" * 64, "pretrain") == raced[0]
    tracker._search = search  # type: ignore[method-assign]
    assert len(tracker._search("genai.stage_key", "k" * 64)) == 1


def test_description_may_be_repeated_and_a_changed_param_is_told_beside(tracker: Tracker, ref: Ref) -> None:
    run_id = tracker.stage_run("k" * 64, "pretrain")
    config = {f"p{i}": i for i in range(150)} | {"path": "/a", "nested": {"x": [1, {"y": 2}]}}
    for path in ("/a", "/a", "/b"):
        tracker.log_params(run_id, config | {"path": path})
        tracker.log_inputs(run_id, {"corpus": ref()})
        tracker.log_summary(run_id, {"bits_per_byte": 1.5, "bad": float("nan")}, time_ms=1000)
    run = tracker.client.get_run(run_id)
    assert len(run.data.params) == 153
    assert run.data.params["path"] == "/a"
    assert run.data.tags["changed.path"] == "/b"
    assert len(run.inputs.dataset_inputs) == 1
    assert len(tracker.client.get_metric_history(run_id, "bits_per_byte")) == 1
    assert set(run.data.metrics) == {"bits_per_byte"}
    whole = json.loads(Path(tracker.client.download_artifacts(run_id, "config.json")).read_text())
    assert whole == config | {"path": "/b"}


def test_a_reused_stage_makes_no_run_and_is_linked(tracker: Tracker, ref: Ref) -> None:
    known, unknown = ref("corpus"), ref("lost")
    original = Tracker(tracker.uri, "another experiment").stage_run(known.key, "augment")
    parent = tracker.parent_run("flow-2", "quickstart")
    before = len(tracker.client.search_runs([tracker.experiment_id]))
    assert tracker.link_reused(parent, "augment", "", known) == original
    assert tracker.link_reused(parent, "pretrain", "0" * 32, unknown) == ""
    tags = tracker.client.get_run(parent).data.tags
    assert tags["reused.augment"] == original
    assert tags["reused.pretrain"] == unknown.label()
    assert len(tracker.client.search_runs([tracker.experiment_id])) == before


def test_what_mlflow_refuses_is_no_outage(tracker: Tracker) -> None:
    with pytest.raises(StorageError, match="could not end the run"):
        tracker.finish("0" * 32)
    tracker.client.delete_experiment(tracker.experiment_id)
    with pytest.raises(ConfigError, match="was deleted"):
        _ = Tracker(tracker.uri, "genai").experiment_id


def test_a_process_that_tracks_is_quiet_and_light(tmp_path: Path) -> None:
    """No file in the working directory, no line of MLflow's on the terminal, no torch, no telemetry."""
    code = (
        "import os, sys\n"
        "import genai_core.tracking.runs, genai_core.tracking.registry, genai_core.tracking.recording\n"
        "assert 'mlflow' not in sys.modules\n"
        "from genai_core.tracking.runs import Tracker\n"
        f"tracker = Tracker('sqlite:///{tmp_path}/home/mlflow.db')\n"
        "run = tracker.stage_run('k' * 64, 'x'); tracker.log_params(run, {'a': 1}); tracker.finish(run)\n"
        "print(sorted({'torch', 'ray', 'transformers', 'boto3'} & set(sys.modules)))\n"
        "from mlflow.telemetry.client import get_telemetry_client\n"
        "print(get_telemetry_client())\n"
    )
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    hidden = {"PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS"}  # they switch telemetry off too
    env = {name: value for name, value in os.environ.items() if name not in hidden and not name.startswith("MLFLOW")}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "None"]
    assert done.stderr == ""
    assert list(cwd.iterdir()) == []
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["mlartifacts", "mlflow.db"]

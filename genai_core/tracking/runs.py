"""MLflow runs: one parent for a flow, one child for every stage that was computed.

    parent (tag genai.flow_run_id)
    ├── child (tag genai.stage_key)      params, metrics by step, inputs as datasets, small files
    └── tag reused.<title> = run id      a stage found again makes no run; the parent names the original

Every call may be repeated: runs are found by their tag, params that stand are left alone, datasets and metrics are
stored once. Called by the driver of a stage only, never by a training step.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.tracking.connection import Connection
from genai_core.tracking.quiet import open_mlflow
from genai_core.tracking.secrets import masked, shown

FLOW_RUN_ID = "genai.flow_run_id"
STAGE_KEY = "genai.stage_key"
COMMIT = "git.commit"

PARAM_CHARACTERS = 500  # MLflow would take 6000; longer than a line nobody reads it there, and config.json has it whole
PARAMS_PER_CALL = 100  # MLflow's limits for one request
METRICS_PER_CALL = 1000
DIGEST_CHARACTERS = 36
OPEN = ("RUNNING", "SCHEDULED", "FAILED", "KILLED")


def clean_name(name: str) -> str:
    """Return a name that MLflow takes for a metric, param or tag: letters, digits and `_-./: `, at most 250."""
    return re.sub(r"[^\w\-./: ]", "_", name).strip("/. ")[:250] or "_"


def flatten(config: Any, prefix: str = "") -> dict[str, str]:
    """Return a config as `{"optimizer.kind": "adamw", ...}`; plain lists become JSON, secrets are masked."""
    value = masked(config)
    if isinstance(value, dict) and value:
        flat: dict[str, str] = {}
        for name, item in value.items():
            flat.update(flatten(item, f"{prefix}.{name}" if prefix else str(name)))
        return flat
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return flatten({str(index): item for index, item in enumerate(value)}, prefix)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return {clean_name(prefix): text[:PARAM_CHARACTERS]} if prefix else {}


class Tracker(Connection):
    """Runs of one experiment. Raises the errors of `Connection.call`."""

    def parent_run(self, flow_run_id: str, name: str, tags: Mapping[str, str] | None = None) -> str:
        """Return the run id of a flow run, created or opened again."""
        return self._open_run(FLOW_RUN_ID, flow_run_id, name, dict(tags or {}))

    def stage_run(
        self, stage_key: str, title: str, parent_run_id: str = "", tags: Mapping[str, str] | None = None
    ) -> str:
        """Return the run id of a stage that is being computed.

        The oldest run of the key that has not finished is opened again and comes under this parent: the flow that
        began it may have died. If all have finished, the stage is computed anew (`--refresh`), in a new run.
        """
        extra = {"mlflow.parentRunId": parent_run_id} if parent_run_id else {}
        return self._open_run(STAGE_KEY, stage_key, title, {**(tags or {}), **extra})

    def find_stage_run(self, stage_key: str) -> str | None:
        """Return the run that computed a stage key, in any experiment: the newest finished, else the oldest."""
        with self.call("search runs"):
            experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        runs = self._search(STAGE_KEY, stage_key, experiments)
        finished = [run for run in runs if run.info.status == "FINISHED"]
        chosen = finished[-1] if finished else (runs[0] if runs else None)
        return chosen.info.run_id if chosen else None

    def run_exists(self, run_id: str) -> bool:
        """Return whether there is such a run, not deleted, here."""
        open_mlflow()
        from mlflow.exceptions import MlflowException

        with self.call(f"read run {run_id}"):
            try:
                return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return False
                raise

    def reopen(self, run_id: str, tags: Mapping[str, str] | None = None) -> None:
        """Set a run running again, with these tags; the parent it had is kept in the tag `genai.earlier_parent`."""
        with self.call(f"open run {run_id}"):
            run = self.client.get_run(run_id)
            earlier = run.data.tags.get("mlflow.parentRunId")
            if run.info.status != "RUNNING":
                self.client.update_run(run_id, status="RUNNING")
        parent = (tags or {}).get("mlflow.parentRunId")
        if parent and earlier and earlier != parent:
            tags = {**(tags or {}), "genai.earlier_parent": earlier}
        self.set_tags(run_id, tags or {})

    def log_params(self, run_id: str, config: Any) -> None:
        """Log a config: flattened as params, whole as `config.json`.

        A param cannot change in MLflow. One that differs from what stands (a path, say, after a resume elsewhere) is
        kept as the tag `changed.<param>`.
        """
        open_mlflow()
        from mlflow.entities import Param

        with self.call("log params"):
            standing = self.client.get_run(run_id).data.params
            flat = flatten(config)
            fresh = [Param(name, value) for name, value in flat.items() if name not in standing]
            for start in range(0, len(fresh), PARAMS_PER_CALL):
                self.client.log_batch(run_id, params=fresh[start : start + PARAMS_PER_CALL])
            self.client.log_dict(run_id, masked(config), "config.json")
        self.set_tags(
            run_id, {f"changed.{name}": value for name, value in flat.items() if standing.get(name, value) != value}
        )

    def log_inputs(self, run_id: str, inputs: Mapping[str, ArtifactRef]) -> None:
        """Log inputs as MLflow datasets: name@version, digest, where they lie, and their role as context."""
        open_mlflow()
        from mlflow.entities import Dataset, DatasetInput, InputTag

        rows = [
            DatasetInput(
                Dataset(
                    name=ref.label()[:500],
                    digest=ref.digest[:DIGEST_CHARACTERS],
                    # an artifact is a folder of ours; "local" and "s3" are names that MLflow can open by itself
                    source_type="s3" if ref.uri.startswith("s3://") else "local",
                    source=json.dumps({"uri": shown(ref.uri)}),
                    profile=json.dumps({"kind": ref.kind, "digest": ref.digest, "stage_key": ref.key}),
                ),
                [InputTag("mlflow.data.context", role)],
            )
            for role, ref in sorted(inputs.items())
        ]
        if rows:
            with self.call("log inputs"):
                self.client.log_inputs(run_id, datasets=rows)
        models = {f"input.{role}": ref.label() for role, ref in inputs.items() if ref.kind != ArtifactKind.DATASET}
        self.set_tags(run_id, models)

    def log_metrics(self, run_id: str, values: Mapping[str, float], step: int = 0, time_ms: int = 0) -> None:
        """Log figures at a step. With the same `time_ms` (milliseconds since 1970) a repetition adds nothing."""
        self.log_points(run_id, [(name, value, time_ms or now_ms(), step) for name, value in values.items()])

    def log_points(self, run_id: str, points: list[tuple[str, float, int, int]]) -> None:
        """Log points of curves: (name, value, milliseconds since 1970, step)."""
        open_mlflow()
        from mlflow.entities import Metric

        rows = [Metric(clean_name(name), value, time_ms, step) for name, value, time_ms, step in points]
        with self.call("log metrics"):
            for start in range(0, len(rows), METRICS_PER_CALL):
                self.client.log_batch(run_id, metrics=rows[start : start + METRICS_PER_CALL])

    def log_summary(self, run_id: str, figures: Mapping[str, float], time_ms: int = 0) -> None:
        """Log the key figures of a whole stage. With the same `time_ms` a repetition adds nothing."""
        self.log_metrics(run_id, {name: value for name, value in figures.items() if math.isfinite(value)}, 0, time_ms)

    def log_files(self, run_id: str, files: Iterable[Path], folder: str = "") -> None:
        """Log small files or folders (reports, previews, plots; never weights) into a folder of the run, '' = its root."""
        with self.call("log files"):
            for path in files:
                if path.is_dir():
                    self.client.log_artifacts(run_id, str(path), "/".join(part for part in (folder, path.name) if part))
                else:
                    self.client.log_artifact(run_id, str(path), folder or None)

    def curve(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Return the points of a metric, (step, value), in the order of steps."""
        with self.call(f"read {metric}"):
            points = self.client.get_metric_history(run_id, clean_name(metric))
        return sorted({point.step: float(point.value) for point in points}.items())

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run, without the secrets in them."""
        open_mlflow()
        from mlflow.entities import RunTag

        rows = [RunTag(name, value) for name, value in _clean_tags(tags).items()]
        with self.call("set tags"):
            for start in range(0, len(rows), PARAMS_PER_CALL):
                self.client.log_batch(run_id, tags=rows[start : start + PARAMS_PER_CALL])

    def link_reused(self, parent_run_id: str, title: str, original_run_id: str, artifact: ArtifactRef) -> str:
        """Return the run that made a reused artifact ('' if MLflow has forgotten it), and name it in the parent run."""
        known = original_run_id and self.run_exists(original_run_id)
        original = original_run_id if known else (self.find_stage_run(artifact.key) or "")
        self.set_tags(parent_run_id, {f"reused.{title}": original or artifact.label()})
        return original

    def delete_doubles(self, tag: str, value: str, run_id: str) -> None:
        """Delete the other runs with this tag that stand open and that nobody has written to.

        A request to create a run that a server answered too late was sent again, and both were carried out, the first
        perhaps after all that looked for it.
        """
        for run in self._search(tag, value):
            empty = run.info.status in ("RUNNING", "SCHEDULED") and not run.data.params and not run.data.metrics
            if run.info.run_id != run_id and empty:
                with self.call("delete a double run"):
                    self.client.delete_run(run.info.run_id)

    def finish(self, run_id: str, status: str = "FINISHED", time_ms: int = 0) -> None:
        """End a run: FINISHED, FAILED or KILLED."""
        with self.call("end the run"):
            self.client.set_terminated(run_id, status, time_ms or now_ms())

    def _open_run(self, tag: str, value: str, name: str, tags: dict[str, str]) -> str:
        unfinished = [run for run in self._search(tag, value) if tag == FLOW_RUN_ID or run.info.status in OPEN]
        if unfinished:
            run_id = unfinished[0].info.run_id
            self.reopen(run_id, tags)
            return str(run_id)
        with self.call(f"create run {name!r}"):
            created = self.client.create_run(
                self.experiment_id, run_name=name, tags=_clean_tags({**tags, tag: value, "mlflow.runName": name})
            )
        # searching and creating are two calls: whoever created first keeps the run, the other one steps back
        oldest = next(run for run in self._search(tag, value) if tag == FLOW_RUN_ID or run.info.status in OPEN)
        if oldest.info.run_id != created.info.run_id:
            with self.call("delete a double run"):
                self.client.delete_run(created.info.run_id)
        return str(oldest.info.run_id)

    def _search(self, tag: str, value: str, experiments: list[str] | None = None) -> list[Any]:
        """Return the runs with a tag, oldest first."""
        with self.call("search runs"):
            found = self.client.search_runs(
                experiments or [self.experiment_id], f"tags.`{tag}` = '{value}'", max_results=1000
            )
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1000)


def _clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    clean = {clean_name(name): str(value) for name, value in masked(dict(tags)).items()}
    if clean.get(COMMIT):
        clean["mlflow.source.git.commit"] = clean[COMMIT]  # the name that MLflow's page shows
    return clean

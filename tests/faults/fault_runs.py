"""Real runs in processes of their own: start one, watch what it has done, kill a part of it, look at what is left.

Every process of a run carries a mark in its environment, so that "nothing is left" is a fact and not a guess, and so
that nothing but our own is ever killed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from genai_core.storage.digest import digest_file
from genai_core.tracking.journal import JOURNAL, parse_row
from tests.processes import command_of

REPOSITORY = Path(__file__).parents[2]
MARK = "GENAI_FAULTS_MARK"
PATIENCE_SECONDS = float(os.environ.get("GENAI_FAULTS_PATIENCE", "420"))
"""How long a run may take on a machine that has other work; an idle one needs a tenth."""

SEED = os.environ.get("GENAI_FAULTS_SEED", "1")
STEPS = 30
CHECKPOINT_EVERY = 5

RECIPE = f"""
name: faults
description: Small enough to be killed many times, slow enough to be hit.
data:
  source: {{kind: pydocs, max_modules: 12, topics: false}}
  split: {{heldout_fraction: 0.25, sealed_fraction: 0.25}}
  pairs: {{kind: pydocs, calls_per_object: 1}}
  tokenizer: {{kind: train, vocab_size: 512}}
  seq_len: 256
base: {{kind: scratch, n_layers: 2, d_model: 128, n_heads: 4, n_kv_heads: 2, d_ff: 256, max_seq_len: 512}}
pretraining:
  steps: {STEPS}
  global_batch_tokens: 2048
  seq_len: 256
  checkpoint_every_steps: {CHECKPOINT_EVERY}
  evaluate_every_steps: 10
  optimizer: {{kind: adamw, learning_rate: 1.0e-3}}
finetuning: {{steps: 4, global_batch_tokens: 1024, checkpoint_every_steps: 2, evaluate_every_steps: 2}}
recursion:
  generations: 1
  synthesis: {{prompts: 24, samples_per_prompt: 2, sampling: {{max_new_tokens: 24}}, min_accepted: 0}}
  training: {{steps: 2, global_batch_tokens: 1024}}
  probe_samples: 8
correction:
  prompts: 8
  samples_per_prompt: 2
  sampling: {{temperature: 0.8, max_new_tokens: 8}}
  training: {{steps: 2, global_batch_tokens: 1024}}
  best_of: 2
  measure_prompts: 8
evaluation: {{max_documents: 8, max_prompts: 8, max_new_tokens: 8, bootstrap_draws: 100}}
promotion: {{model_name: faults}}
compute: {{precision: float32, micro_batch_rows: 4, threads: 1, shard_rows: 4}}
"""


def moments(scenario: str, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, float]]:
    """Return one random (step, seconds after it) for each range of steps; told, so that a failure can be repeated."""
    draw = random.Random(f"{SEED} {scenario}")
    found = [(draw.randint(low, high), round(draw.uniform(0.0, 0.3), 3)) for low, high in ranges]
    print(f"{scenario}: seed {SEED}, (step, seconds after it) {found}")
    return found


def wait_for(what: str, condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS, every: float = 0.02) -> Any:
    """Return the condition's first value that is true. Fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(every)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")


@dataclass
class Home:
    """A folder with everything of an installation: store, MLflow, logs."""

    path: Path
    recipe: Path
    environment: dict[str, str] = field(default_factory=dict)

    def copy(self, path: Path) -> Home:
        """Return a home with the same content elsewhere: a store is relocatable."""
        shutil.copytree(self.path, path, ignore=shutil.ignore_patterns("services", "logs"))
        return Home(path, self.recipe, self.environment)

    def start(self, flow: str = "", *arguments: str, **environment: str) -> RunningFlow:
        """Start a flow of the recipe (the whole lifecycle through `genai run` if none is named)."""
        return RunningFlow(self, flow, arguments, environment)

    def run(self, flow: str = "", *arguments: str, code: int = 0, **environment: str) -> RunningFlow:
        """Run a flow to its end. Fails unless it ends with this exit code."""
        with self.start(flow, *arguments, **environment) as running:
            running.end(code)
        return running

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another `genai` command."""
        return subprocess.run(
            [sys.executable, "-m", "genai_core.cli", *arguments],
            env=self._environment({}),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def workspace(self, title: str) -> Path | None:
        """Return the unfinished state of a stage, None while there is none."""
        for record in (self.path / "store" / "work").glob("*/run.json"):
            try:
                if json.loads(record.read_text())["title"] == title:
                    return record.parent
            except (OSError, ValueError):  # just being replaced, or removed
                continue
        return None

    def journal(self, title: str) -> list[dict[str, Any]]:
        """Return the whole rows of a stage's journal."""
        work = self.workspace(title)
        try:
            lines = (work / JOURNAL).read_bytes().splitlines(keepends=True) if work else []
        except OSError:
            return []
        return [row for line in lines if line.endswith(b"\n") and (row := parse_row(line))]

    def step(self, title: str = "pretrain") -> int:
        """Return the last step that a stage has recorded."""
        return max((row["step"] for row in self.journal(title) if "m" in row), default=0)

    def checkpoints(self, title: str = "pretrain") -> list[Path]:
        """Return the checkpoints of a stage, oldest first."""
        work = self.workspace(title)
        return sorted((work / "checkpoints").glob("step-*")) if work else []

    def shards(self, title: str) -> dict[str, tuple[int, int]]:
        """Return inode and time of every finished generation shard: a shard made again has others."""
        found = {}
        work = self.workspace(title)
        for path in sorted((work / "shards").rglob("*.jsonl")) if work else []:
            try:
                stat = path.stat()
            except FileNotFoundError:  # the stage has just been published
                continue
            found[path.relative_to(work).as_posix()] = (stat.st_ino, stat.st_mtime_ns)
        return found

    def manifests(self) -> dict[str, dict[str, Any]]:
        """Return the manifests of what is published, by stage title."""
        rows = [json.loads(path.read_text()) for path in (self.path / "store" / "artifacts").glob("*/manifest.json")]
        return {row["told"]["title"]: row for row in rows}

    def folder(self, title: str) -> Path:
        """Return the folder of a stage's published files."""
        manifest = self.manifests()[title]
        return self.path / "store" / "artifacts" / manifest["key"] / manifest["base"]

    def published(self) -> dict[str, dict[str, str]]:
        """Return, by stage title, the sha256 of every published file, read now, and the manifest's digest."""
        found = {}
        for title, manifest in self.manifests().items():
            folder = self.folder(title)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            found[title] = {path.relative_to(folder).as_posix(): digest_file(path) for path in files}
            assert found[title] == {file["path"]: file["sha256"] for file in manifest["files"]}, title
            found[title]["manifest digest"] = manifest["digest"]
        return found

    def stage_runs(self, title: str) -> list[Any]:
        """Return the MLflow runs of a stage."""
        return [run for run in self._client().search_runs(["1"]) if run.data.tags.get("genai.title") == title]

    def history(self, title: str) -> dict[str, list[int]]:
        """Return the steps of every metric in a stage's one MLflow run."""
        [run] = self.stage_runs(title)
        client = self._client()
        return {
            name: sorted(point.step for point in client.get_metric_history(run.info.run_id, name))
            for name in run.data.metrics
        }

    def model_versions(self) -> list[Any]:
        """Return the registered versions of the recipe's model."""
        return list(self._client().search_model_versions("name = 'faults'"))

    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.path / 'mlflow.db'}")

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        here = {**os.environ, "GENAI_HOME": str(self.path), "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "NO_COLOR": "1"}
        return {**here, **self.environment, **more}


class RunningFlow:
    """A flow in a process of its own, with all that it has started."""

    def __init__(self, home: Home, flow: str, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self.home = home
        self.mark = uuid.uuid4().hex
        self._sessions: set[int] = set()
        self.report_file = home.path.parent / f"{home.path.name}-{self.mark[:6]}.json"
        self.output_file = self.report_file.with_suffix(".txt")
        command = ["-m", "genai_core.cli", "run", str(home.recipe), "--report", str(self.report_file)]
        command += ["--flow", flow] if flow else []
        self.started = time.monotonic()
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command, *arguments],
                env=home._environment({MARK: self.mark, **environment}),
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> RunningFlow:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind, whatever the test thought of it."""
        for process in self.marked():
            kill(process, signal.SIGKILL)
        self.process.wait()

    @property
    def output(self) -> str:
        """Return what the flow has printed."""
        return self.output_file.read_text(errors="replace")

    def report(self) -> dict[str, Any]:
        """Return the report."""
        return dict(json.loads(self.report_file.read_text()))

    def statuses(self) -> dict[str, str]:
        """Return the status of every stage in the report."""
        return {row["name"]: row["status"] for row in self.report()["stages"]}

    def end(self, *codes: int) -> int:
        """Wait for the flow's end. Fails, showing what it printed, unless it ends with one of these exit codes."""
        try:
            code = self.process.wait(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run did not end:\n{self.output}") from None
        print(f"  ended with {code} after {time.monotonic() - self.started:.1f} s")
        assert code in codes, f"exit code {code}:\n{self.output}"
        return code

    def await_step(self, step: int, after: float = 0.0, title: str = "pretrain") -> None:
        """Wait until this run (not one before it) has recorded a step of a stage, and so many seconds more."""
        before = self.home.step(title)
        self.host()
        self.marked()  # remembers the sessions now, so that nothing need be looked up at the moment itself
        wait_for(f"step {step} of {title}", lambda: self._alive() and self.home.step(title) >= max(step, before + 1))
        time.sleep(after)

    @property
    def flow(self) -> psutil.Process:
        """Return the flow process."""
        return psutil.Process(self.process.pid)

    def host(self) -> psutil.Process:
        """Return the running job host."""
        return wait_for("a job host", self._find_host)

    def workers(self) -> list[psutil.Process]:
        """Return the Ray Train workers."""
        return [process for process in self.host().children(recursive=True) if "TrainWorker" in command_of(process)]

    def session(self) -> list[psutil.Process]:
        """Return the job host and everything in its session, Ray's processes included."""
        return session_members(self.host().pid)

    def marked(self) -> list[psutil.Process]:
        """Return every process of this run, zombies excluded: with its mark, or in a session of one with its mark.

        Ray gives its workers names, and the name overwrites the environment that others can see.
        """
        running = [process for process in psutil.process_iter() if is_running(process)]
        self._sessions |= {session_of(process) for process in running if has_mark(process, self.mark)} - {0}
        return [process for process in running if session_of(process) in self._sessions]

    def await_nothing_left(self, seconds: float) -> float:
        """Return after how many seconds no process of this run was left. Fails after so many."""
        started = time.monotonic()
        try:
            wait_for("the end of all processes", lambda: not self.marked(), seconds, every=0.1)
        except AssertionError:
            left = "\n".join(f"{process.pid} {command_of(process)}" for process in self.marked())
            raise AssertionError(f"after {seconds:.0f} s these are left:\n{left}") from None
        return time.monotonic() - started

    def _find_host(self) -> psutil.Process | None:
        self._alive()
        for child in self.flow.children():
            if "genai_core.stages host" in command_of(child):
                return child
        return None

    def _alive(self) -> bool:
        assert self.process.poll() is None, f"the run ended with {self.process.returncode}:\n{self.output}"
        return True


def session_members(leader: int) -> list[psutil.Process]:
    """Return the living processes of a session."""
    return [process for process in psutil.process_iter() if session_of(process) == leader and is_running(process)]


def await_session_end(leader: int, seconds: float) -> None:
    """Wait until no process of a session lives. Fails after so many seconds."""
    wait_for(f"the end of session {leader}", lambda: not session_members(leader), seconds)


def kill(process: psutil.Process, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process of ours; nothing happens if it has ended."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def session_of(process: psutil.Process) -> int:
    """Return a process's session, 0 if it has ended."""
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return 0


def has_mark(process: psutil.Process, mark: str) -> bool:
    """Return whether a process has the mark in its environment."""
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{process.pid}/environ").read_bytes()
    except OSError:  # ended, or not ours
        return False


def is_running(process: psutil.Process) -> bool:
    """Return whether a process is alive and no zombie."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def steps_to(last: int, every: int = 1) -> list[int]:
    """Return the steps at which something is recorded: every, 2 * every, ..., last."""
    return [step for step in range(1, last + 1) if step % every == 0 or step == last]


def checkpoint_steps(home: Home) -> list[int]:
    """Return the steps of the checkpoints of pre-training, oldest first."""
    return [int(path.name.removeprefix("step-")) for path in home.checkpoints()]


def checkpoints_refused(output: str) -> Iterator[str]:
    """Yield what the screen says of refused checkpoints."""
    text = " ".join(output.split())  # the screen folds long lines
    while "checkpoint refused: " in text:
        text = text.split("checkpoint refused: ", 1)[1]
        yield text[:200]

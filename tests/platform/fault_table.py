"""Hurt the platform at random moments of real runs, and write what came of it.

    python -m tests.platform.fault_table --budget-minutes 60 --out docs/results

Every call goes on where the last one ended: faults.jsonl keeps a line for each run, faults.md is the table of them all.
A call begins with a run that nothing hurts; what it made, byte by byte, is what every other must make.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from genai_core.storage.artifacts import ArtifactStore
from tasks.session import git_commit
from tests.platform.faulty_stack import (
    FAULTS,
    KINDS,
    NOT_INJECTED,
    PROCESSES,
    TARGETS,
    Fault,
    FaultyStack,
    wait_until,
)
from tests.platform.stack import NODES, missing

DEPLOYMENT = "lifecycle/minute"
CHANGES = {"recursion__generations": 1}
MODEL = "pydocs-minute"
FAULTS_PER_RUN = 12
PAUSE_SECONDS = (2.0, 20.0)
"""Between the end of one fault and the next, drawn evenly."""

VICTIM_SECONDS = 120.0
"""How long the faults of a run wait for a victim of any: there is no generation worker while a model is trained."""

END_SECONDS = 900.0
SILENT_SECONDS = 240.0
"""How long a run may be believed running by Prefect when no process of it is left."""

LEFT_SECONDS = 60.0
READY_SECONDS = 180.0
AWAY = (OSError, http.client.HTTPException)
"""What a caller of Prefect sees while it is hurt."""

GOOD, BAD = {"COMPLETED"}, {"FAILED", "CRASHED", "CANCELLED"}


@dataclass
class Outcome:
    """One run with its faults, as a line of faults.jsonl."""

    seed: str
    commit: str
    reference_seconds: float
    faults: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    reruns: int = 0
    silent: int = 0
    """How often Prefect went on believing that it ran when nothing of it was left; a rerun followed."""
    state: str = ""
    identical: bool = False
    versions: int = 0
    verified: bool = False
    history: bool = False
    """Whether MLflow has every stage once, finished, with every step of every curve."""
    left: list[str] = field(default_factory=list)
    """Processes that were still there."""
    wrong: str = ""

    @property
    def good(self) -> bool:
        """Return whether all that is promised was kept."""
        return (
            not self.wrong
            and self.identical
            and self.versions == 1
            and self.verified
            and self.history
            and not self.left
        )


@dataclass(frozen=True)
class Made:
    """What a run left behind."""

    digests: Mapping[str, str]
    """Of every artifact, by stage."""
    histories: Mapping[str, Any]
    """By stage: how its MLflow runs ended, and how many points each curve has."""
    versions: int


class Campaign:
    """Runs on one platform, one after the other."""

    def __init__(self, stack: FaultyStack, commit: str) -> None:
        self.stack = stack
        self.commit = commit
        self.number = 0
        started = time.monotonic()
        run = self._start()
        stack.await_run(run, "Completed", "Refused", seconds=END_SECONDS)
        self.reference_seconds = time.monotonic() - started
        self.reference = self._made()
        self._forget()
        print(f"unhurt: {self.reference_seconds:.0f} s, {len(self.reference.digests)} artifacts", flush=True)

    def hurt_one(self, seed: str, wanted: Sequence[Fault]) -> Outcome:
        """Return what came of a run with these faults; those that found no victim are left out."""
        draw = random.Random(seed)
        outcome = Outcome(seed, self.commit, round(self.reference_seconds, 1))
        started = time.monotonic()
        self.run = self._start()
        try:
            left = list(wanted)
            while left and (fault := self._next(left, draw, outcome)):
                left.remove(fault)
                self._inject(fault, draw, outcome, started)
            self._await_end(outcome)
            outcome.seconds = round(time.monotonic() - started, 1)
            self._judge(outcome)
        except Exception as error:  # a platform that does not answer any more is what is looked for: it is told
            outcome.wrong = f"{type(error).__name__}: {str(error)[:1500]}"
        return outcome

    def _start(self) -> str:
        """Start a run on an empty store of its own; return its id."""
        self.number += 1
        return self._run_again()

    def _run_again(self) -> str:
        return self.stack.start(DEPLOYMENT, self.stack.flow_environment(f"run-{self.number}"), **CHANGES)

    def _next(self, wanted: Sequence[Fault], draw: random.Random, outcome: Outcome) -> Fault | None:
        """Return the first fault that finds a victim, after a pause; None when the run has ended."""
        self._sleep(draw.uniform(*PAUSE_SECONDS), outcome)
        deadline = time.monotonic() + VICTIM_SECONDS
        while not self._ended(outcome):
            for fault in wanted:
                if self.stack.victims(fault.target, draw):
                    return fault
            if time.monotonic() > deadline:
                print(f"  no victim of {', '.join(map(str, wanted))} within {VICTIM_SECONDS:.0f} s", flush=True)
                break
            time.sleep(0.25)
        return None

    def _inject(self, fault: Fault, draw: random.Random, outcome: Outcome, started: float) -> None:
        told = {**asdict(fault), "at": round(time.monotonic() - started, 1), "rerun": False}
        outcome.faults.append(told)
        print(f"  {told['at']:6.1f} s  {fault}", flush=True)
        with self.stack.hurt(fault, draw):
            time.sleep(KINDS[fault.kind])

    def _sleep(self, seconds: float, outcome: Outcome) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._ended(outcome)
            time.sleep(0.5)

    def _ended(self, outcome: Outcome) -> bool:
        """Return whether the run has ended well; where it has ended otherwise, it is started again first."""
        try:
            state = self.stack.run(self.run)["state"]
        except AWAY:
            return False
        outcome.state = state["name"]
        if state["type"] in BAD and state["name"] != "Refused":
            self._rerun(outcome, f"{state['name']}: {state['message']}")
            return False
        return state["type"] in GOOD or state["name"] == "Refused"

    def _rerun(self, outcome: Outcome, why: str) -> None:
        print(f"          again, for it is {why[:300]}", flush=True)
        outcome.reruns += 1
        if outcome.faults:
            outcome.faults[-1]["rerun"] = True
        started: list[str] = []

        def start() -> bool:
            with suppress(*AWAY):
                started.append(self._run_again())
            return bool(started)

        assert wait_until(start, READY_SECONDS), "Prefect took no other run"
        self.run = started[0]

    def _await_end(self, outcome: Outcome) -> None:
        deadline, seen = time.monotonic() + END_SECONDS, time.monotonic()
        while not self._ended(outcome):
            assert time.monotonic() < deadline, f"{outcome.state} after {END_SECONDS:.0f} s more"
            if self.stack.processes(PROCESSES["flow process"]):
                seen = time.monotonic()
            elif time.monotonic() - seen > SILENT_SECONDS:
                outcome.silent += 1
                state = {"type": "CRASHED", "name": "Crashed", "message": "nothing of it is left"}
                self.stack.api(f"/flow_runs/{self.run}/set_state", {"state": state, "force": True})
                seen = time.monotonic()
            time.sleep(0.5)

    def _judge(self, outcome: Outcome) -> None:
        assert wait_until(lambda: all(one.ready() for one in self.stack.services.values()), READY_SECONDS)
        wait_until(lambda: not self._left(), LEFT_SECONDS)
        outcome.left = self._left()
        made = self._made()
        outcome.identical = made.digests == self.reference.digests
        outcome.versions = made.versions
        outcome.history = made.histories == self.reference.histories
        place = self.stack.flow_environment(f"run-{self.number}")["GENAI_STORAGE_URI"]
        done = self.stack.call("storage", "verify", environment={"GENAI_STORAGE_URI": place}, seconds=600)
        outcome.verified = done.returncode == 0
        differences = [
            ("artifacts", made.digests, self.reference.digests),
            ("MLflow", made.histories, self.reference.histories),
        ]
        outcome.wrong = "; ".join(
            f"{what} of {name}: {one.get(name)} where {other.get(name)} was"
            for what, one, other in differences
            for name in sorted({*one, *other})
            if one.get(name) != other.get(name)
        )[:1500]
        self._forget()

    def _left(self) -> list[str]:
        names = (*PROCESSES.values(), "genai_core.stages")
        return [name for name in names for _ in self.stack.processes(name)]

    def _made(self) -> Made:
        client = self.stack.mlflow()
        with tempfile.TemporaryDirectory() as scratch:
            store = ArtifactStore(self.stack.store(f"run-{self.number}"), Path(scratch))
            manifests = [store.manifest(ref.key) for ref in store.list()]
        runs = client.search_runs([one.experiment_id for one in client.search_experiments()], max_results=1000)
        histories: dict[str, list[Any]] = {}
        for run in runs:
            points = {
                name: len({point.step for point in client.get_metric_history(run.info.run_id, name)})
                for name in run.data.metrics
                if not name.startswith(("system/", "time/"))
            }
            title = run.data.tags.get("genai.title", "")
            if title:
                histories.setdefault(title, []).append([run.info.status, points])
        return Made(
            {one["told"]["title"]: one["digest"] for one in manifests},
            histories,
            len(client.search_model_versions(f"name = '{MODEL}'")),
        )

    def _forget(self) -> None:
        """Take out of MLflow what the run told it: the next one has the same stages, and the same models."""
        client = self.stack.mlflow()
        experiments = [one.experiment_id for one in client.search_experiments()]
        for run in client.search_runs(experiments, max_results=1000):
            client.delete_run(run.info.run_id)
        for logged in client.search_logged_models(experiments):
            client.delete_logged_model(logged.model_id)
        for model in client.search_registered_models():
            client.delete_registered_model(model.name)


def shuffled(seed: str) -> Iterator[Fault]:
    """Yield faults without end, each as often as any other."""
    for turn in range(1 << 20):
        faults = list(FAULTS)
        random.Random(f"{seed} {turn}").shuffle(faults)
        yield from faults


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return faults.md."""
    outcomes = [Outcome(**row) for row in rows]
    faults = [(fault, outcome) for outcome in outcomes for fault in outcome.faults]
    good = sum(outcome.good for outcome in outcomes)
    again = sum(fault["rerun"] for fault, _ in faults)
    more = sum(outcome.reruns for outcome in outcomes) - again
    lines = [
        "# Faults",
        "",
        "Written by `make faults`. Real runs of `lifecycle/minute` (one generation) on Postgres, an S3 store, MLflow and "
        f"Prefect servers, a worker and {NODES} Ray nodes, all on one machine, are hurt at random moments. What is killed "
        "is started again after 2 s, as `restart: unless-stopped` does; processes of a run are not. SeaweedFS, whose index takes "
        "nothing more once its disk was full, is started again when there is room, as a person would have to. A run that fails is "
        "started again with the same parameters, as a person would. Its last state must be that of a run nothing hurt: "
        "every artifact byte for byte, every curve in MLflow with every step, one registered version, a store that "
        "verifies, and no process left.",
        "",
        f"**{len(faults)} faults in {len(outcomes)} runs; {good} of the runs kept all of that.** "
        f"{len(faults) - again} faults were followed by no rerun, {again} by one{f', {more} more came on top' if more else ''}; "
        f"{sum(not outcome.reruns for outcome in outcomes)} of the runs, which are hurt {len(faults) / max(1, len(outcomes)):.0f} "
        f"times each, ended by themselves, {sum(outcome.reruns == 1 for outcome in outcomes)} after one rerun. "
        f"Seeds: {', '.join(sorted({outcome.seed.split('/')[0] for outcome in outcomes}))}.",
        "",
        "In a cell: how many faults, in brackets how many were followed by a rerun. *Seconds lost* is what the run took "
        "beyond an unhurt one, shared evenly by its faults: the median over all of the row.",
        "",
        f"| | {' | '.join(KINDS)} | seconds lost |",
        "|---|" + "---|" * (len(KINDS) + 1),
    ]
    for target in TARGETS:
        cells = []
        for kind in KINDS:
            here = [fault for fault, _ in faults if fault["target"] == target and fault["kind"] == kind]
            again = sum(fault["rerun"] for fault in here)
            possible = Fault(target, kind) in FAULTS
            cells.append(f"{len(here)} ({again})" if here else ("0" if possible else "–"))
        lost = [
            (outcome.seconds - outcome.reference_seconds) / len(outcome.faults)
            for fault, outcome in faults
            if fault["target"] == target
        ]
        lines.append(f"| {target} | {' | '.join(cells)} | {f'{statistics.median(lost):.0f}' if lost else ''} |")
    lines += ["", "Not injected:", "", *(f"- {one}" for one in NOT_INJECTED), "", "## Runs", ""]
    lines += ["| seed | faults, at seconds | took | unhurt | reruns | kept |", "|---|---|---|---|---|---|"]
    for outcome in outcomes:
        told = ", ".join(f"{fault['target']} {fault['kind']} {fault['at']:.0f}" for fault in outcome.faults)
        kept = "all" if outcome.good else f"**{says_wrong(outcome)}**"
        silent = f" ({outcome.silent} told by us)" if outcome.silent else ""
        lines.append(
            f"| {outcome.seed} | {told} | {outcome.seconds:.0f} s | {outcome.reference_seconds:.0f} s | "
            f"{outcome.reruns}{silent} | {kept} |"
        )
    return "\n".join(lines) + "\n"


def says_wrong(outcome: Outcome) -> str:
    """Return what was not kept, in a cell of a table."""
    parts = [
        "" if outcome.identical else "not identical",
        "" if outcome.versions == 1 else f"{outcome.versions} versions",
        "" if outcome.verified else "store does not verify",
        "" if outcome.history else "MLflow differs",
        f"left: {', '.join(outcome.left)}" if outcome.left else "",
        outcome.wrong,
    ]
    return "; ".join(part for part in parts if part).replace("|", "\\|").replace("\n", " ")[:400]


def main() -> None:
    """Hurt for as long as there is time; exit with 1 where something was not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget-minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="Folder of faults.jsonl and faults.md.")
    parser.add_argument("--seed", default="1", help="Of the moments and of the order; runs are numbered behind it.")
    arguments = parser.parse_args()
    if why := missing():
        sys.exit(f"There is {why}")
    end = time.monotonic() + arguments.budget_minutes * 60
    record = arguments.out / "faults.jsonl"
    rows = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    mine = [row for row in rows if row["seed"].split("/")[0] == arguments.seed]
    order = shuffled(arguments.seed)
    for _ in range(sum(len(row["faults"]) for row in mine)):
        next(order)
    kept, wanted = True, list[Fault]()
    with tempfile.TemporaryDirectory(prefix="genai-faults-") as folder:
        stack = FaultyStack(Path(folder))
        try:
            stack.bring_up()
            campaign = Campaign(stack, git_commit())
            before = len(rows)
            while len(rows) == before or time.monotonic() < end:  # one at least: the unhurt run is paid for by then
                number = 1 + sum(row["seed"].split("/")[0] == arguments.seed for row in rows)
                seed = f"{arguments.seed}/{number}"
                print(f"run {seed}", flush=True)
                wanted += [next(order) for _ in range(FAULTS_PER_RUN - len(wanted))]
                outcome = campaign.hurt_one(seed, wanted)
                done = {(fault["target"], fault["kind"]) for fault in outcome.faults}
                wanted = [fault for fault in wanted if (fault.target, fault.kind) not in done]
                rows.append(asdict(outcome))
                kept &= outcome.good
                with record.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                (arguments.out / "faults.md").write_text(table(rows))
                said = "all kept" if outcome.good else says_wrong(outcome)
                print(f"  {outcome.seconds:.0f} s, {outcome.reruns} reruns, {outcome.state}: {said}", flush=True)
        finally:
            stack.take_down()
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()

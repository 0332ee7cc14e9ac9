"""`genai up` as a person runs it: four lines, a deployment that runs to its end, Ctrl-C, and nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from genai_core.cli.asking import ask
from genai_core.cli.services import live_mlflow, live_prefect
from genai_core.config.load import load_recipe
from genai_core.launch.sessions import end_family, family
from tests.ports import assert_loopback_only, listens

pytestmark = pytest.mark.platform

START_SECONDS, RUN_SECONDS, END_SECONDS = 240.0, 900.0, 60.0


class Up:
    """A running `genai up`, its output in a file."""

    def __init__(self, home: Path, *arguments: str, **environment: str) -> None:
        self.home = home
        self.log = home.parent / f"{home.name}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "genai_core.cli", "up", *arguments],
                env={**os.environ, "GENAI_HOME": str(home), "HF_HUB_OFFLINE": "1", **environment},
                cwd=home.parent,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Return how a command ended that was called beside it."""
        command = [sys.executable, "-m", "genai_core.cli", *arguments]
        environment = {**os.environ, "GENAI_HOME": str(self.home), "HF_HUB_OFFLINE": "1"}
        return subprocess.run(
            command, env=environment, cwd=self.home.parent, capture_output=True, text=True, timeout=RUN_SECONDS
        )

    @property
    def said(self) -> str:
        """Return what it has printed."""
        return self.log.read_text()

    def lines(self) -> dict[str, list[str]]:
        """Return the last line of each service, in words."""
        return {line.split()[0]: line.split() for line in self.said.splitlines() if line.strip()}

    def wait(self, what: str, condition: Callable[[], Any], seconds: float) -> Any:
        """Return what the condition gives when it is true."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.said}"
            assert time.monotonic() < deadline, f"no {what} after {seconds:.0f} s:\n{self.said}"
            time.sleep(0.3)
        return found

    def wait_until_ready(self) -> dict[str, list[str]]:
        """Return the four lines when all are ready."""

        def ready() -> dict[str, list[str]]:
            lines = self.lines()
            good = [name for name in ("prefect", "mlflow", "ray", "worker") if lines.get(name, ["", ""])[1] == "ready"]
            return lines if len(good) == 4 else {}

        return dict(self.wait("four lines", ready, START_SECONDS))

    def members(self) -> list[psutil.Process]:
        """Return all of its processes: its services', and the keeper's of Prefect."""
        keepers = [one for one in psutil.process_iter(["cmdline"]) if str(self.home) in (one.info["cmdline"] or [])]
        children = [child for keeper in keepers for child in keeper.children(recursive=True)]
        return [*family({"GENAI_UP": str(self.home)}), *keepers, *children]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    one = Up(tmp_path / "home", "--prefect-port", "0", "--mlflow-port", "0", "--ray-port", "0")
    yield one
    if one.process.poll() is None:
        one.process.terminate()
        one.process.wait(END_SECONDS)
    end_family({"GENAI_UP": str(one.home)})


def start_run(api: str, name: str, parameters: dict[str, Any]) -> str:
    found = ask(f"{api}/deployments/name/{name}", seconds=10)
    assert found.good, f"no deployment {name}: {found.body!r}"
    deployment = found.json()
    made = ask(f"{api}/deployments/{deployment['id']}/create_flow_run", body={"parameters": parameters}, seconds=10)
    assert made.status == 201, made.body
    return str(made.json()["id"])


def test_a_deployment_runs_and_ctrl_c_leaves_nothing(up: Up) -> None:
    lines = up.wait_until_ready()
    assert {"quickstart,", "minute"} <= {*lines["worker"]}
    prefect, mlflow, ray = (lines[name][2] for name in ("prefect", "mlflow", "ray"))
    # what a `genai run` beside it finds
    assert (live_prefect(up.home), live_mlflow(up.home)) == (prefect, mlflow)
    assert len(up.said.splitlines()) < 15, "a line a change, no more"
    ports = assert_loopback_only(up.members())
    assert {int(address.rpartition(":")[2]) for address in (prefect, mlflow, ray)} <= ports

    recipe = load_recipe("minute", ["recursion.generations=0"]).model_dump(mode="json")
    api = f"{prefect}/api"
    run = start_run(api, "lifecycle/minute", {"recipe": recipe})

    def ended() -> str:
        state = ask(f"{api}/flow_runs/{run}", seconds=10).json()["state"]
        return str(state["type"]) if state["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else ""

    state = up.wait("end of the run", ended, RUN_SECONDS)
    assert state == "COMPLETED", (up.home / "logs" / "worker.log").read_text()[-3000:]
    jobs = ask(f"{ray}/api/jobs/", seconds=10).json()
    assert jobs and {job["status"] for job in jobs} == {"SUCCEEDED"}, "its stages were jobs of this Ray"
    runs = ask(f"{mlflow}/api/2.0/mlflow/registered-models/search", seconds=10).json()
    assert [model["name"] for model in runs["registered_models"]] == [recipe["promotion"]["model_name"]]
    assert list((up.home / "store" / "artifacts").iterdir()), "and this store"

    beside = up.call("run", "minute", "--flow", "augmentation")
    assert beside.returncode == 0, beside.stdout + beside.stderr
    assert f"Prefect at {prefect}" in beside.stdout
    assert re.search(r"augment +reused", beside.stdout)
    doctor = up.call("doctor", "--json")
    found = {row["name"]: row for row in json.loads(doctor.stdout)["findings"]}
    assert found["ray server"]["detail"] == ray and found["mlflow server"]["verdict"] == "ok", found
    assert found["worker"]["verdict"] == "ok", found

    members = up.members()
    assert len(members) > 10
    ports |= assert_loopback_only(members)
    folder = Path((up.home / "services" / "ray-folder").read_text())
    began = time.monotonic()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(END_SECONDS) == 0, up.said
    print(f"down after {time.monotonic() - began:.1f} s")
    assert not up.members()
    assert not [one for one in members if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert not [port for port in ports if listens(port)]
    assert {words[1] for words in up.lines().values()} == {"stopped"}
    assert (live_prefect(up.home), live_mlflow(up.home)) == ("", "")
    assert not folder.exists()


def test_what_is_killed_comes_back_and_a_run_that_is_stopped_is_told(up: Up) -> None:
    """MLflow and the worker are killed; then SIGTERM meets a flow, and Prefect hears that it has ended."""
    lines = up.wait_until_ready()
    api = f"{lines['prefect'][2]}/api"
    victims = [one for one in up.members() if re.search(r"mlflow server|prefect worker", " ".join(one.cmdline()))]
    assert len(victims) >= 2
    for victim in victims:
        victim.kill()
    up.wait("word of it", lambda: up.said.count("restarting") >= 2, 30)
    assert up.said.count("ended by signal 9; try 2 of 4") == 2
    assert up.wait_until_ready()["mlflow"][2] == lines["mlflow"][2], "under the same address"

    recipe = load_recipe("minute", ["recursion.generations=0"]).model_dump(mode="json")
    run = start_run(api, "augmentation/minute", {"recipe": recipe})
    log = up.home / "logs" / "worker.log"
    up.wait("flow", lambda: "augment: started" in log.read_text(), 120)
    up.process.terminate()
    assert up.process.wait(END_SECONDS) == 0, up.said
    assert not up.members()

    import sqlite3

    with sqlite3.connect(up.home / "prefect" / "prefect.db") as database:
        rows = database.execute("select id, state_type from flow_run").fetchall()
        places = database.execute("select sum(active_slots) from concurrency_limit_v2").fetchone()
    database.close()
    assert rows == [(run, "CRASHED")]
    assert places == (0,), "else no later run of the deployment would begin"

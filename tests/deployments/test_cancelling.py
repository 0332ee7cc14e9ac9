"""A run that is cancelled in Prefect's page: its job stops within 15 seconds, and what it had is gone on from."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect_house import House, until, worker

from genai_core.cli.services import free_port
from genai_core.launch.head import head_command, head_environment

pytestmark = pytest.mark.platform

STOP_SECONDS = 15
EVERY = 10
LONG = ("--set", "pretraining.steps=200", "--set", f"pretraining.checkpoint_every_steps={EVERY}")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("cancelled"))
    house.deploy("minute", *LONG)
    with worker(house):
        yield house


@pytest.fixture
def head(tmp_path: Path) -> Iterator[str]:
    """The job server of a Ray of this test alone."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="r-") as folder, (tmp_path / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            head_command(port, free_port(), Path(folder)),
            env={**os.environ, **head_environment({**os.environ, "RAY_AUTH_MODE": "disabled"})},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            until(lambda: jobs(address) is not None, 90, (tmp_path / "ray.log").read_text)
            yield address
        finally:
            for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(signal.SIGKILL)
            process.wait()


def jobs(address: str) -> list[dict[str, Any]] | None:
    try:
        with urllib.request.urlopen(f"{address}/api/jobs/", timeout=5) as reply:
            return list(json.load(reply))
    except OSError:
        return None


def cancel(house: House, run_id: str) -> None:
    """Do what the button of the page does."""
    answer = house.api(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert answer["status"] == "ACCEPT", answer


def await_training(house: House, run_id: str) -> None:
    """Wait until the run has written a checkpoint of some steps."""

    def checkpoints() -> set[Path]:
        found = (house.home / "store" / "work").glob("**/step-*/manifest.json")
        return {path for path in found if int(path.parent.name.removeprefix("step-"))}  # there is one of step 0, too

    known = checkpoints()

    def trains() -> bool:
        assert house.run(run_id)["state_type"] in {"SCHEDULED", "PENDING", "RUNNING"}, house.logs(run_id)
        return bool(checkpoints() - known)

    until(trains, 300, lambda: house.logs(run_id))


OF_RAY = "IDLE|Dashboard|RuntimeEnvAgent|_AutoscalingCoordinatorActor"
"""Processes that stay on a Ray without any job."""


def processes_of(head: str) -> dict[int, str]:
    """Return the processes that work for jobs of a Ray, drivers and training workers, with what they are."""
    port = head.rpartition(":")[2]
    [raylet] = [
        one for one in psutil.process_iter(["cmdline"]) if f"--dashboard-port={port}" in (one.info["cmdline"] or ())
    ]
    found = {}
    for one in raylet.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a zombie, too
            if re.search(rf"genai_core\.stages|ray::(?!{OF_RAY})", words := " ".join(one.cmdline())):
                found[one.pid] = words
    return found


def hosts(house: House) -> list[psutil.Process]:
    """Return the job hosts of the flows that run in the house."""
    found = []
    for one in psutil.process_iter(["cmdline"]):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if {"genai_core.stages", "host"} <= {*(one.info["cmdline"] or ())} and one.environ()["GENAI_HOME"] == str(
                house.home
            ):
                found.append(one)
    return found


def test_a_job_on_a_cluster_is_stopped_and_the_next_run_resumes(house: House, head: str) -> None:
    run_id = house.start("pretraining/minute", compute__ray_address=head)
    await_training(house, run_id)
    before = processes_of(head)
    assert len(before) >= 2
    began = time.monotonic()
    cancel(house, run_id)
    until(lambda: "STOPPED" in {job["status"] for job in jobs(head) or ()}, STOP_SECONDS)
    until(
        lambda: not before.keys() & processes_of(head).keys(),
        STOP_SECONDS,
        lambda: f"still there: {processes_of(head)}",
    )
    taken = time.monotonic() - began
    until(lambda: house.run(run_id)["state_name"] == "Cancelled", 60, lambda: house.logs(run_id))
    print(f"stopped after {taken:.1f} s, told after {time.monotonic() - began:.1f} s")
    assert taken < STOP_SECONDS
    assert house.statuses(run_id) == {"augment": "computed", "pretrain": "interrupted"}

    again = house.start("pretraining/minute", compute__ray_address=head)
    house.await_run(again, "Completed")
    assert house.statuses(again) == {"augment": "reused", "pretrain": "computed"}
    assert int(re.findall(r"resumed at step (\d+)", house.logs(again))[0]) >= EVERY
    assert sorted(job["submission_id"][-3:] for job in jobs(head) or ()) == ["-a1", "-a1", "-a2"]


def test_a_local_ray_is_ended_and_the_next_run_resumes(house: House) -> None:
    run_id = house.start("pretraining/minute", seed=1)
    await_training(house, run_id)
    [host] = hosts(house)
    family = {host.pid, *(child.pid for child in host.children(recursive=True))}
    began = time.monotonic()
    cancel(house, run_id)
    until(
        lambda: not any(psutil.pid_exists(pid) for pid in family),
        STOP_SECONDS,
        lambda: "a process of its Ray still runs",
    )
    taken = time.monotonic() - began
    until(lambda: house.run(run_id)["state_name"] == "Cancelled", 60, lambda: house.logs(run_id))
    print(f"stopped after {taken:.1f} s, told after {time.monotonic() - began:.1f} s")
    assert house.statuses(run_id)["pretrain"] == "interrupted"
    again = house.start("pretraining/minute", seed=1)
    house.await_run(again, "Completed")
    assert int(re.findall(r"resumed at step (\d+)", house.logs(again))[0]) >= EVERY

"""Jobs on a real Ray head whose flow runs, on a real Prefect server, go on, have ended, or are nobody's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect_house import House, until
from ray.job_submission import JobSubmissionClient

from genai_core.launch.jobs import submission_id
from tests.launch.ray_head import running_head

pytestmark = pytest.mark.platform


class Cluster:
    """A Ray head beside a Prefect server, with jobs that sleep."""

    def __init__(self, address: str, house: House) -> None:
        self.client = JobSubmissionClient(address)
        self.house = house
        self.store = house.folder / "store"
        house.environment |= {"GENAI_RAY_ADDRESS": address, "GENAI_STORAGE_URI": str(self.store)}
        self.flow = house.api("/flows/", {"name": "lifecycle"})["id"]

    def flow_run(self, state: str) -> str:
        """Return the id of a flow run in a state."""
        run = self.house.api("/flow_runs/", {"flow_id": self.flow, "state": {"type": state}})
        return str(run["id"])

    def job(self, letter: str, first: str, last: str, store: str = "") -> str:
        """Submit a job for a flow run, to which another has come back since; return its name."""
        name = submission_id(letter * 64, 1, store or str(self.store))
        message = self.store / "jobs" / f"{name}.json"
        message.parent.mkdir(parents=True, exist_ok=True)
        message.write_text(json.dumps({"job": {"tags": {"prefect.flow_run_id": last}}, "claim": {}}))
        told = {"stage": f"stage-{letter}", "flow_run": first}
        self.client.submit_job(entrypoint="sleep 600", submission_id=name, metadata=told)
        until(lambda: self.client.get_job_status(name) == "RUNNING", 120)
        return name

    def lives(self, name: str) -> bool:
        """Return whether a job has not ended."""
        return not self.client.get_job_status(name).is_terminal()

    def call(self, *arguments: str, code: int = 0) -> str:
        """Return what `genai jobs` prints."""
        done = self.house.call("jobs", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_head(tmp_path) as address:
        yield Cluster(address, House(tmp_path))


def test_a_job_is_stopped_when_the_last_flow_run_that_waited_for_it_has_ended(cluster: Cluster) -> None:
    assert "No job of genai" in cluster.call()
    running, cancelled, crashed = (cluster.flow_run(state) for state in ("RUNNING", "CANCELLED", "CRASHED"))
    waited_for = cluster.job("a", running, running)
    left = cluster.job("b", cancelled, cancelled)
    resumed = cluster.job("c", crashed, running)
    of_others = cluster.job("d", cancelled, cancelled, store="s3://somewhere/else")
    unknown = cluster.job("e", "3f9c2a7", "3f9c2a7")

    listed = cluster.call()
    assert all(f"stage-{letter}" in listed for letter in "abcde")
    assert "of another store" in listed
    assert "unknown to Prefect" in listed
    assert "1 of 5 run for flow runs that have ended" in listed
    doctor = cluster.house.call("doctor").stdout
    assert "1 of 5 run for flow runs that have ended" in " ".join(doctor.split()), doctor

    assert "0 of 5 jobs stopped" in cluster.call("clean"), "it has ended just now, and may be resumed"
    assert "1 of 5 jobs would be stopped" in cluster.call("clean", "--minutes", "0", "--dry-run")
    assert cluster.lives(left)
    assert "1 of 5 jobs stopped" in cluster.call("clean", "--minutes", "0")
    until(lambda: not cluster.lives(left), 30)
    assert all(map(cluster.lives, (waited_for, resumed, of_others, unknown)))

    assert "There is no job genai-nothing" in cluster.call("stop", unknown, "genai-nothing", code=2)
    assert cluster.lives(unknown), "nothing is stopped where one of the names is wrong"
    cluster.call("stop", unknown)
    until(lambda: not cluster.lives(unknown), 30)
    assert "is not a job of genai" in cluster.call("stop", "raysubmit_1", code=2)

"""The cluster launcher on a real Ray head: the minute lifecycle as jobs of the Ray Jobs API."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.job_submission import JobSubmissionClient

from genai_core.launch.jobs import submission_id
from tests.deployments.prefect_house import until
from tests.launch.ray_head import running_head

pytestmark = pytest.mark.platform


@pytest.fixture
def head(tmp_path: Path) -> Iterator[str]:
    with running_head(tmp_path) as address:
        yield address


ACTORS = """
from genai_core.launch.cluster import connect_ray
connect_ray("auto")
import os, ray
told = ray.get(ray.remote(lambda: os.environ.get("RAY_ADDRESS")).options(num_cpus=0).remote())
print("RESULT", ray.get_runtime_context().gcs_address, told)
"""


def test_every_process_of_a_job_is_told_which_ray_is_its_own(head: str) -> None:
    """Untold, Ray Train's placement group cleaner asks the Ray that a file in /tmp names, and a training ends 12 s late."""
    client = JobSubmissionClient(head)
    name = client.submit_job(entrypoint=shlex.join(["python", "-c", ACTORS]))
    until(lambda: client.get_job_status(name).is_terminal(), 120)
    logs = client.get_job_logs(name)
    [line] = [line for line in logs.splitlines() if line.startswith("RESULT")]
    _, own, told = line.split()
    assert told == own, logs


def test_the_lifecycle_runs_as_jobs_of_a_cluster(head: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "GENAI_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "RAY_AUTH_MODE": "disabled",
    }
    command = [
        sys.executable,
        "-m",
        "genai_core.cli",
        "run",
        "minute",
        "--ray",
        head,
        "--report",
        str(tmp_path / "r.json"),
    ]
    command += ["--set", "recursion.generations=0"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert {stage["status"] for stage in report["stages"]} <= {"computed", "skipped"}
    jobs = json.load(urllib.request.urlopen(f"{head}/api/jobs/", timeout=10))
    names = {job["submission_id"] for job in jobs}
    keys = [stage["artifact"]["uri"].rsplit("/", 1)[1] for stage in report["stages"] if stage["artifact"]]
    assert names == {submission_id(key, 1, str(tmp_path / "home" / "store")) for key in keys}
    again = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stdout
    assert {stage["status"] for stage in json.loads((tmp_path / "r.json").read_text())["stages"]} <= {
        "reused",
        "skipped",
    }

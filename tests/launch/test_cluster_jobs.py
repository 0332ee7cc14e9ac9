"""The cluster launcher on a real Ray head: the minute lifecycle as jobs of the Ray Jobs API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from genai_core.launch.jobs import submission_id

pytestmark = pytest.mark.platform

CORES = 4


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def head(tmp_path: Path) -> Iterator[str]:
    port, dashboard = free_port(), free_port()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
    }
    with (tmp_path / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}"),
                *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
                *(f"--num-cpus={CORES}", "--object-store-memory=200000000", "--disable-usage-stats"),
            ],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + 90
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/jobs/", timeout=2)
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "ray.log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "ray.log").read_text()
                time.sleep(0.5)
        yield address
    finally:
        import psutil

        group = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        for pid in group:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()


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

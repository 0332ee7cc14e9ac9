"""A Prefect server, a worker and an installation of their own for tests of deployments; and what the server says."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from genai_core.cli.services import await_prefect, begin_prefect, prefect_environment

ROOT = Path(__file__).parent.parent.parent


def client_environment(home: Path, prefect: str) -> dict[str, str]:
    """Return the environment of a worker, its flows and a person's commands that use a Prefect server, and look often."""
    environment = {
        **os.environ,
        **prefect_environment(home),
        "PREFECT_API_URL": f"{prefect}/api",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "GENAI_HOME": str(home),
        "RAY_AUTH_MODE": "disabled",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "160",
    }
    environment.pop("GENAI_PROJECT", None)
    return environment


class PrefectServer:
    """A Prefect server, asked over HTTP as a person's browser does, and by commands."""

    prefect: str
    """Its address."""

    folder: Path
    environment: dict[str, str]
    """Where commands run, and with what."""

    def call(
        self, *arguments: str, seconds: float = 300, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Return how a genai command ended, in a changed environment."""
        command = [sys.executable, "-m", "genai_core.cli", *arguments]
        here = {**self.environment, **(environment or {})}
        return subprocess.run(command, env=here, cwd=self.folder, capture_output=True, text=True, timeout=seconds)

    def api(self, path: str, body: Any = None, method: str = "") -> Any:
        """Return what the server answers, as JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.prefect}/api{path}", data, {"Content-Type": "application/json"}, method=method or None
        )
        for left in reversed(range(6)):
            try:
                with urllib.request.urlopen(request, timeout=60) as reply:
                    text = reply.read()
                break
            except urllib.error.HTTPError as error:
                if error.code != 503 or not left:  # 503: its SQLite is locked for now; nothing was done
                    raise
                time.sleep(1)
        return json.loads(text) if text else None

    def deployments(self) -> dict[str, dict[str, Any]]:
        """Return the deployments by `flow/name`."""
        flows = {flow["id"]: flow["name"] for flow in self.api("/flows/filter", {})}
        found = self.api("/deployments/filter", {})
        return {f"{flows[one['flow_id']]}/{one['name']}": one for one in found}

    def start(self, deployment: str, environment: Mapping[str, str] | None = None, **changes: Any) -> str:
        """Start a run with changed recipe keys (a__b=1 is a.b=1), in a changed environment; return its id."""
        found = self.deployments()[deployment]
        recipe = json.loads(json.dumps(found["parameters"]["recipe"]))
        for key, value in changes.items():
            *parents, last = key.split("__")
            place = recipe
            for parent in parents:
                place = place[parent]
            assert last in place
            place[last] = value
        wanted: dict[str, Any] = {"parameters": {"recipe": recipe}}
        if environment:
            wanted["job_variables"] = {"env": dict(environment)}
        run = self.api(f"/deployments/{found['id']}/create_flow_run", wanted)
        return str(run["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a flow run."""
        return dict(self.api(f"/flow_runs/{run_id}"))

    def logs(self, run_id: str) -> str:
        """Return the log of a flow run."""
        rows = self.api("/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"})
        return "\n".join(row["message"] for row in rows)

    def await_run(self, run_id: str, *names: str, seconds: float = 420) -> dict[str, Any]:
        """Return a flow run once it is in a state of one of these names; fail if it ends in another."""
        ended: list[dict[str, Any]] = []

        def look() -> bool:
            run = self.run(run_id)
            wrong = (
                run["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} and run["state_name"] not in names
            )
            assert not wrong, f"{run['state_name']}: {run['state']['message']}\n{self.logs(run_id)}"
            ended[:] = [run]
            return run["state_name"] in names

        until(look, seconds, lambda: f"{names} never came: {ended}\n{self.logs(run_id)}")
        return ended[0]

    def artifacts(self, run_id: str, key: str) -> list[dict[str, Any]]:
        """Return the artifacts of a run under a key, the newest first."""
        found = self.api(
            "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}}}
        )
        return sorted(found, key=lambda one: str(one["created"]), reverse=True)

    def statuses(self, run_id: str) -> dict[str, str]:
        """Return the status of each stage, as the run's table tells it."""
        return {row["stage"]: row["status"] for row in json.loads(self.artifacts(run_id, "stages")[0]["data"])}


class House(PrefectServer):
    """One installation with its Prefect server; the server ends with this process's lease."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        begin_prefect(self.home)
        self.prefect = await_prefect(self.home)
        self.environment = client_environment(self.home, self.prefect)

    def deploy(self, *arguments: str, code: int = 0) -> str:
        """Return what `genai deploy` says."""
        done = self.call("deploy", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


def until(what: Callable[[], Any], seconds: float, why: Callable[[], str] = lambda: "") -> Any:
    """Return what is not false, asked every quarter of a second."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, why()
        time.sleep(0.25)
    return found


@contextmanager
def worker(house: House) -> Iterator[None]:
    """Run a process worker on the pool of the deployments; everything that it started ends with it."""
    import psutil

    with (house.folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "genai"],
            env=house.environment,
            cwd=house.folder,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@contextmanager
def ear() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve an address on loopback that takes notifications; what came stands in the list."""
    heard: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/told", heard
    finally:
        server.shutdown()
        server.server_close()

"""`genai ui`: the Prefect and MLflow pages over the local stores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

from rich.console import Console

from genai_core.cli.options import settings_of
from genai_core.cli.services import (
    START_SECONDS,
    answers,
    await_prefect,
    begin_prefect,
    free_port,
    live_mlflow,
    write_address,
)
from genai_core.config.settings import Settings
from genai_core.errors import ConfigError, TransientError


def serve(prefect_port: int, mlflow_port: int) -> None:
    """Start both servers, print their addresses, wait for Ctrl-C, stop what was started."""
    settings = settings_of()
    if live_mlflow(settings.home):
        raise ConfigError(f"genai ui is already running on {settings.home}: MLflow at {live_mlflow(settings.home)}.")
    console = Console(highlight=False)
    begin_prefect(settings.home, prefect_port)
    server = start_mlflow(settings, mlflow_port)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        console.print(f"Prefect  {await_prefect(settings.home)}")
        console.print(f"MLflow   {live_mlflow(settings.home) or settings.tracking_uri}")
        console.print("Ctrl-C stops both.")
        while not stopped.wait(2.0):
            if server is not None and server.poll() is not None:
                raise TransientError(f"The MLflow server ended; see {settings.home / 'logs' / 'mlflow.log'}.")
            begin_prefect(settings.home, prefect_port)
    finally:
        if server is not None:
            (settings.home / "services" / "mlflow.json").unlink(missing_ok=True)
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def start_mlflow(settings: Settings, port: int) -> subprocess.Popen[bytes] | None:
    """Start an MLflow server on the local database and wait for it; None where tracking is a server already."""
    if not settings.tracking_uri.startswith("sqlite:"):
        return None
    from genai_core.tracking.runs import Tracker

    artifacts = settings.home / "mlartifacts"
    Tracker(settings.tracking_uri, "genai", artifacts).experiment_id  # makes the database, if it is not there  # noqa: B018
    port = free_port(port)
    url = f"http://127.0.0.1:{port}"
    log = settings.home / "logs" / "mlflow.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        server = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "mlflow",
                    "server",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    str(port),
                    "--workers",
                    "1",
                ),
                *("--backend-store-uri", settings.tracking_uri, "--default-artifact-root", str(artifacts)),
            ],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while not answers(f"{url}/health"):
        if server.poll() is not None or time.monotonic() > deadline:
            raise TransientError(f"The MLflow server did not start; see {log}.")
        time.sleep(0.2)
    write_address(settings.home, "mlflow", url)
    return server

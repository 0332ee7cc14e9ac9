"""A Ray head of the tests' own, with a job server on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.platform.stack import free_ports
from tests.processes import send

READY_SECONDS = 90.0


@contextmanager
def running_head(folder: Path, *, cores: int = 4, more: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield the address of its job server; end all of its processes after the block.

    Args:
        folder: it is started in, and jobs with it; its log lies there.
        cores: that it counts.
        more: variables of its environment, and so of its jobs.
    """
    port, dashboard = free_ports(2)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        **(more or {}),
    }
    log = folder / "ray.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}"),
                *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
                *(f"--num-cpus={cores}", "--object-store-memory=200000000", "--disable-usage-stats"),
                "--dashboard-agent-listen-port=0",  # its own is one port for all Rays of a machine
            ],
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + READY_SECONDS
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/jobs/", timeout=2)
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
        yield address
    finally:
        own = psutil.Process(process.pid)
        send([own, *own.children(recursive=True)], signal.SIGKILL)
        process.wait()

"""The Ray head that `genai up` starts: its command, its environment, and how its job server is asked.

Everything of it listens to loopback. A job server runs whatever it is sent, so no option opens it to a network.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from genai_core.launch.cluster import OBJECT_STORE_BYTES, ray_cpus
from genai_core.launch.quiet import SILENCE


def head_command(port: int, client_port: int, folder: Path) -> list[str]:
    """Return what starts a Ray head in the foreground; its sockets and logs lie in `folder`, whose path must be short."""
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"),
        # 0: any free one. Ray's own choices are the same for every Ray of a machine, and its workers' ports are a range
        # of ten thousand in which other services have theirs
        *("--port=0", "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"),
        f"--ray-client-server-port={client_port}",  # nobody uses it, but it cannot be left out and may not be 0
        *(f"--num-cpus={ray_cpus()}", f"--object-store-memory={OBJECT_STORE_BYTES}"),
        *("--include-log-monitor=False", f"--temp-dir={folder}"),
    ]


def head_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a head, which its jobs inherit: this Python, this machine only, an explicit auth mode."""
    return {
        **{name: environment.get(name, value) for name, value in SILENCE.items()},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}",
        # else a loopback address is replaced by the machine's own: see `connect_ray`
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # told to end, it would wait half a minute for its workers to become idle: what ran on it has been stopped before
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # there is one node, and it is this one
    }


def job_server(address: str) -> str:
    """Return a job server's address as a URL without a slash at its end; HTTP where it does not say."""
    return (address if "://" in address else f"http://{address}").rstrip("/")


def ray_credentials() -> dict[str, str]:
    """Return the header that a Ray job server wants from this process; none where tokens are off."""
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    if os.environ.get("RAY_AUTH_MODE") != "token" or not token:
        return {}
    return {"Authorization": f"Bearer {token}"}

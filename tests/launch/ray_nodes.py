"""A Ray head and one node on this machine, each with one CPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "training"), str(TESTS.parent)]

from tests.platform.stack import Service, free_ports, ray_commands  # noqa: E402


@contextmanager
def ray_nodes(folder: Path, around_node: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Service]]]:
    """Yield the cluster's address, and its services 'head' and 'node'.

    Args:
        folder: of their logs.
        around_node: a command that starts the node's, given behind it.
    """
    ports = dict(zip(("ray", "jobs", "client"), free_ports(3), strict=True))
    short = Path("/tmp") / f"genai-nodes-{os.getpid()}-{ports['ray']}"  # Ray's sockets need a short path
    head, join = ray_commands(ports, 1, short)
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS / "training"), str(TESTS / "launch"), str(TESTS.parent)])
    # else Ray replaces the loopback address by the machine's own, as in loopback_ray.py
    environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

    def nodes_are(number: int) -> Callable[[], bool]:
        def ready() -> bool:
            command = [sys.executable, "-m", "ray.scripts.scripts", "list", "nodes", "--format=json"]
            command += [f"--address=http://127.0.0.1:{ports['jobs']}", "--filter", "state=ALIVE"]
            found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
            return found.stdout.startswith("[") and len(json.loads(found.stdout)) >= number

        return ready

    services = {
        "head": Service("head", head, environment, folder, nodes_are(1)),
        "node": Service("node", [*around_node, *join], environment, folder, nodes_are(2)),
    }
    try:
        for service in services.values():
            service.start()
        yield f"127.0.0.1:{ports['ray']}", services
    finally:
        for service in reversed(services.values()):
            service.kill()
        shutil.rmtree(short, ignore_errors=True)


def start_training(folder: Path, services: dict[str, Service], address: str, most: int, least: int) -> Service:
    """Start a training of the arguments in given.json, on the cluster; return its driver."""
    command = [sys.executable, str(TESTS / "launch" / "train_on_nodes.py"), address, str(folder / "given.json")]
    driver = Service("driver", [*command, str(most), str(least)], services["head"].environment, folder, lambda: True)
    driver.launch()
    return driver

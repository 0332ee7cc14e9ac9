"""A local Ray knows itself, whatever other Ray runs on the machine."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os
from genai_core.launch.cluster import connect_ray, disconnect_ray

connect_ray()
import ray

@ray.remote
def address():
    return os.environ.get("RAY_ADDRESS")

own = ray.get_runtime_context().gcs_address
told = ray.get(address.remote())
disconnect_ray()
print("RESULT", own, told, os.environ.get("RAY_ADDRESS"))
"""


def test_every_process_of_a_local_ray_is_told_its_address() -> None:
    """Untold, Ray Train's placement group cleaner asks another cluster for its controller, and ends the training."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    own, told, afterwards = next(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT"))
    assert own.startswith("127.0.0.1:")
    assert told == own
    assert afterwards == "None"

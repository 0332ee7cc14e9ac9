"""MLflow imported by several threads at once: what a flow's own thread, its shippers and its outbox do."""

from __future__ import annotations

import subprocess
import sys

THREADS = """
import sys, threading, time, traceback
from genai_core.tracking.runs import Tracker

faults = []
tracker = Tracker(sys.argv[1])
doors = [
    lambda: tracker.find_stage_run("k"),
    lambda: tracker.run_exists("0" * 32),
    lambda: tracker.log_points("", []),
]

def enter(door, after):
    time.sleep(after)
    try:
        door()
    except Exception:
        faults.append(traceback.format_exc())

threads = [threading.Thread(target=enter, args=(door, n * 0.05)) for n in range(8) for door in doors]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("\\n".join(faults))
sys.exit(bool(faults))
"""


def test_threads_that_need_mlflow_at_once_all_get_it_whole(uri: str) -> None:
    """Without the lock in `open_mlflow`, some are given modules that are half imported."""
    done = subprocess.run([sys.executable, "-c", THREADS, uri], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

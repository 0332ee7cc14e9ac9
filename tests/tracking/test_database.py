"""A new database that several processes want at once, and one whose maker was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from genai_core.tracking.runs import Tracker

OPEN = "import sys; from genai_core.tracking.runs import Tracker; print(Tracker(sys.argv[1]).experiment_id)"


def start(path: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", OPEN, f"sqlite:///{path}"]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_of_several_makes_it_and_a_killed_maker_leaves_nothing(tmp_path: Path) -> None:
    """Without the lock, most of them fail in the middle of a migration; killed there, all do for ever."""
    path = tmp_path / "home" / "mlflow.db"
    killed = start(path)
    draft = path.with_name(f".{path.name}.part")
    while not (draft.exists() and draft.stat().st_size > 0):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not path.exists()

    several = [start(path) for _ in range(3)]
    told = [process.communicate(timeout=120) for process in several]
    assert [process.returncode for process in several] == [0, 0, 0], told
    assert {out.strip() for out, _ in told} == {Tracker(f"sqlite:///{path}").experiment_id}
    assert not draft.exists()

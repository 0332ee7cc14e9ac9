"""Ending a session: also those of it that lead process groups of their own, and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil

from genai_core.launch.sessions import kill_session

LEADER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], process_group=0)
print(child.pid, flush=True)
child.wait()
"""


def start_leader() -> tuple[subprocess.Popen[str], psutil.Process]:
    """Return a process that leads a session, and its child, which leads another process group of that session."""
    leader = subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert leader.stdout is not None
    return leader, psutil.Process(int(leader.stdout.readline()))


def test_a_session_ends_with_all_its_groups_and_no_other() -> None:
    leader, member = start_leader()
    other, stranger = start_leader()
    try:
        assert os.getpgid(member.pid) != leader.pid  # killing the leader's group would not reach it
        kill_session(leader.pid)
        assert leader.wait(10) == -signal.SIGKILL
        member.wait(10)
        assert other.poll() is None
        assert stranger.is_running()
        kill_session(leader.pid)  # of an ended session nothing is left to kill
    finally:
        kill_session(other.pid)
        other.wait(10)
        for process in (leader, other):
            assert process.stdout is not None
            process.stdout.close()

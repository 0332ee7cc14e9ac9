"""Ending a process with everything that it has started.

A job host leads a session. Killing its process group is not enough: each of Ray's workers leads a group of its own and
goes on for about a second after its raylet has died, long enough to write into a workspace that another attempt uses.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil


def kill_session(leader: int) -> None:
    """Kill every process of a session but this one, the leader included; returns without waiting for their end."""
    for _ in range(3):  # one that was just being started is met by the next look
        for pid in psutil.pids():
            with suppress(ProcessLookupError, PermissionError):  # ended meanwhile, or another user's
                if pid != os.getpid() and os.getsid(pid) == leader:
                    os.kill(pid, signal.SIGKILL)

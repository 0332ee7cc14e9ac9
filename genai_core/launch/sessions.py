"""Ending a process with everything that it has started.

A job host leads a session. Killing its process group is not enough: each of Ray's workers leads a group of its own and
goes on for about a second after its raylet has died, long enough to write into a workspace that another attempt uses.
A job of a Ray head leads even a session of its own, and its parent may be gone; so what belongs to one service bears a
mark, too: variables in its environment. Ray's workers overwrite theirs with a name, but not their session.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import psutil


def kill_session(leader: int) -> None:
    """Kill every process of a session but this one, the leader included; returns without waiting for their end."""
    for _ in range(3):  # one that was just being started is met by the next look
        for pid in psutil.pids():
            with suppress(ProcessLookupError, PermissionError):  # ended meanwhile, or another user's
                if pid != os.getpid() and os.getsid(pid) == leader:
                    os.kill(pid, signal.SIGKILL)


def family(mark: Mapping[str, str], sessions: Iterable[int] = ()) -> list[psutil.Process]:
    """Return the living processes with the mark, and all in their sessions and in the given ones.

    A mark is variables and their values in a process's environment. This process is never among them, nor is one of
    its own session without the mark.
    """
    running = [process for process in psutil.process_iter() if process.pid != os.getpid() and _is_running(process)]
    marked = {process.pid for process in running if _bears(process.pid, mark)}
    known = ({*sessions} | {_session(pid) for pid in marked}) - {0, os.getsid(0)}
    return [process for process in running if process.pid in marked or _session(process.pid) in known]


def end_family(mark: Mapping[str, str], may_wait: Callable[[], bool] = lambda: False) -> int:
    """Kill a family, but let it end by itself while we may wait; return how many had to be killed."""
    sessions: set[int] = set()  # of those seen: what is left of a session in the end may not bear the mark
    killed: set[int] = set()
    while left := family(mark, sessions):
        sessions |= {_session(process.pid) for process in left}
        if may_wait():
            time.sleep(0.1)
            continue
        killed |= {process.pid for process in left}
        for process in left:
            with suppress(psutil.Error):  # it makes sure that the id is still that process's
                process.kill()
        time.sleep(0.05)  # psutil's own wait would take our children's exit codes away
    return len(killed)


def _session(pid: int) -> int:
    """Return a process's session, 0 if it has ended."""
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return 0


def _bears(pid: int, mark: Mapping[str, str]) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:
            found = {*environment.read().split(b"\0")}
    except OSError:  # ended, or another user's
        return False
    return all(f"{name}={value}".encode() in found for name, value in mark.items())


def _is_running(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False

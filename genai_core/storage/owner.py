"""Who holds a claim, and whether that process is certainly gone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from pydantic import Field

from genai_core.config.base import Config


class Owner(Config):
    """A process of some run. With pid 0 there is no process to look at, and only heartbeats tell."""

    host: str
    boot_id: str = Field(description="Boot of the machine and, in a container, its process space.")
    pid: int
    process_start_time: int = Field(description="Clock ticks since boot, or microseconds since the epoch.")
    run: str = Field(default="", description="Free text for the people who wait: a flow run's name or id.")

    def label(self) -> str:
        """Return 'run on host, process 123'."""
        return f"{self.run or 'a run'} on {self.host}" + (f", process {self.pid}" if self.pid else "")


def this_process(run: str = "") -> Owner:
    """Return the running process as an owner."""
    pid = os.getpid()
    return Owner(
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid=pid,
        process_start_time=_start_time(pid) or 0,
        run=run,
    )


def is_gone(owner: Owner) -> bool:
    """Return whether the owner ran on this machine since its last boot and its process has ended.

    False means 'not known to be gone': it may be alive, stopped, or on a machine that we cannot see.
    """
    if not owner.pid or owner.host != socket.gethostname() or owner.boot_id != _boot_id():
        return False
    return _start_time(owner.pid) != owner.process_start_time


def _boot_id() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # two containers share the boot, but not the numbers of their processes
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))


def _start_time(pid: int) -> int | None:
    """Return when a process started, None if there is none. A zombie has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    else:
        fields = stat[stat.rindex(b")") + 2 :].split()  # the name before it may hold spaces and brackets
        return None if fields[0] in {b"Z", b"X"} else int(fields[19])
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() * 1e6)
    except psutil.NoSuchProcess:
        return None

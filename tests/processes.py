"""Processes of this machine that may end while they are looked at."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil


def send(processes: Iterable[psutil.Process], number: int) -> None:
    """Send a signal to processes, those that have ended left out."""
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(number)


def command_of(process: psutil.Process) -> str:
    """Return a process's command line, '' if it has ended."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""

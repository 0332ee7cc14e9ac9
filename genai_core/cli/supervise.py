"""Services that stand and fall together: started in their order, watched, started again, taken down.

    waiting -> starting -> ready <-> silent          silent: its process lives, but does not answer
                  ^          |
                  |          v
             restarting <- (ended) -> failed         after the last try; the others go on

A service that never was ready takes everything down when it fails: there is nothing yet to lose. Later the others go
on, since trainings may be running: the line says so, and the command ends with 1.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from genai_core.launch.sessions import end_family

START_SECONDS = 180.0
"""A service that has not answered so long after its start is ended, and started again. A busy machine takes a minute."""
PAUSES_SECONDS = (1.0, 5.0, 15.0)
"""How long to wait before each new try; after the last one a service is given up."""
STEADY_SECONDS = 600.0
"""After so long without an end the tries begin anew."""
GRACE_SECONDS = 20.0
"""What is asked to end is killed after so long: a flow stops its job first, and the job writes its state."""
LOOK_SECONDS = 3.0
TICK_SECONDS = 0.25


class State(StrEnum):
    """What a service's line says."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    SILENT = "silent"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass
class Service:
    """Something at an address that is watched, whoever has started it."""

    name: str
    address: str
    healthy: Callable[[], bool]
    note: str = ""
    """Said while it is ready."""
    after: Sequence[Service] = ()
    """What must be ready before this is started."""
    state: State = State.WAITING
    detail: str = ""
    _look_at: float = 0.0

    def step(self, now: float) -> None:
        """Look at it, and do what is due."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        if self.healthy():
            self.state, self.detail = State.READY, self.note
        else:
            self.state, self.detail = State.SILENT, f"does not answer; {self.note}"

    def ask_to_end(self) -> None:
        """Ask it to end; nothing for what others have started."""

    def end(self, may_wait: Callable[[], bool]) -> None:
        """Return when it has ended; nothing for what others have started."""


@dataclass
class Started(Service):
    """A service of ours: a process that leads a session of its own."""

    begin: Callable[[], subprocess.Popen[bytes] | None] = field(kw_only=True)
    mark: Mapping[str, str] = field(kw_only=True)
    """Variables that its processes have in their environment, and no others."""
    on_ready: Callable[[], None] = lambda: None
    log: Path = Path()
    was_ready: bool = False
    process: subprocess.Popen[bytes] | None = None
    _tries: int = 0
    _ends: int = 0
    _since: float = 0.0

    def step(self, now: float) -> None:
        """Look at it, and do what is due."""
        match self.state:
            case State.WAITING | State.RESTARTING:
                if now >= self._since and all(service.state is State.READY for service in self.after):
                    self._start(now)
            case State.STARTING:
                if self.healthy():
                    self.state, self.detail, self.was_ready, self._since = State.READY, self._say(), True, now
                    self.on_ready()
                elif why := self.why_ended():
                    self._fall(now, why)
                elif now - self._since > START_SECONDS:
                    self._fall(now, f"no answer for {START_SECONDS:.0f} s")
            case State.READY | State.SILENT:
                if why := self.why_ended():
                    self._fall(now, why)
                elif now >= self._look_at:
                    self._look_at = now + LOOK_SECONDS
                    good = self.healthy()
                    self.state = State.READY if good else State.SILENT
                    self.detail = self._say() if good else f"lives, but does not answer; see {self.log}"
                    if now - self._since > STEADY_SECONDS:
                        self._tries = 0

    def why_ended(self) -> str:
        """Return how its process ended, '' while it lives."""
        if self.process is None or self.process.poll() is None:
            return ""
        code = self.process.returncode
        return f"ended by signal {-code}" if code < 0 else f"ended with code {code}"

    def clear(self) -> None:
        """Kill all that is left of it before it is started again."""
        end_family(self.mark)
        if self.process is not None:
            self.process.wait()

    def ask_to_end(self) -> None:
        """Ask it to end."""
        if self.process is not None and self.process.poll() is None:
            self.state, self.detail = State.STOPPING, ""
            self.process.terminate()

    def end(self, may_wait: Callable[[], bool]) -> None:
        """Return when all of its processes have ended; they are killed when we may not wait any more."""
        end_family(self.mark, may_wait)
        if self.process is not None:
            self.process.wait()
        if self.state is not State.FAILED:
            self.state, self.detail = State.STOPPED, ""

    def _say(self) -> str:
        """Return its note, and how often it has ended: on a terminal the line that said so is gone."""
        again = f"started again {self._ends} time{'s' if self._ends > 1 else ''}; see {self.log}" if self._ends else ""
        return "; ".join(part for part in (self.note, again) if part)

    def _start(self, now: float) -> None:
        self.state, self._since = State.STARTING, now
        self.detail = f"try {self._tries + 1} of {len(PAUSES_SECONDS) + 1}" if self._tries else ""
        self.process = self.begin()

    def _fall(self, now: float, why: str) -> None:
        self.clear()
        self._ends += 1
        where = f"; see {self.log}"
        if self._tries == len(PAUSES_SECONDS):
            self.state, self.detail = State.FAILED, f"{why}; given up after {self._tries + 1} tries{where}"
            return
        pause = PAUSES_SECONDS[self._tries]
        self._tries += 1
        self.state, self._since = State.RESTARTING, now + pause
        self.detail = f"{why}; try {self._tries + 1} of {len(PAUSES_SECONDS) + 1} in {pause:.0f} s{where}"


def watch(services: Sequence[Service], show: Callable[[], None], stopped: threading.Event) -> None:
    """Keep the services up until told to stop, or until one has failed that never was ready."""
    while not stopped.is_set():
        for service in services:
            service.step(time.monotonic())
            if isinstance(service, Started) and service.state is State.FAILED and not service.was_ready:
                show()
                return
        show()
        stopped.wait(TICK_SECONDS)


def take_down(
    order: Sequence[Sequence[Service]], mark: Mapping[str, str], show: Callable[[], None], hurry: threading.Event
) -> None:
    """End the services, group by group, then whatever else bears the mark. Each group may take its time, without hurry."""
    for group in order:
        for service in group:
            service.ask_to_end()
        show()
        deadline = time.monotonic() + GRACE_SECONDS
        for service in group:
            service.end(lambda deadline=deadline: time.monotonic() < deadline and not hurry.is_set())  # type: ignore[misc]
        show()
    end_family(mark)


def tail(log: Path, lines: int = 12) -> str:
    """Return the end of a log, '' if there is none."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - 20_000))
            return "\n".join(handle.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""

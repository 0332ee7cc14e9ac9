"""Two services of `genai up` that are more than a process: a Prefect server that is shared, a worker that has flows."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from genai_core.cli.services import begin_prefect, drop_lease, keeper_of, live_prefect, other_leases
from genai_core.cli.supervise import Started, State
from genai_core.launch.sessions import family, kill_session


def other_port(wanted: int, got: int) -> str:
    """Return what is said where a port was not to be had."""
    return f"port {wanted} is taken" if wanted not in {0, got} else ""


class KeptPrefect(Started):
    """The home's Prefect server, which a keeper runs for all who hold a lease on it."""

    def __init__(self, home: Path, port: int, host: str) -> None:
        def begin() -> subprocess.Popen[bytes] | None:
            had = self.address.rpartition(":")[2]  # those who know its address know it still
            return begin_prefect(home, int(had or port), host)

        log = home / "logs" / "prefect.log"
        super().__init__("prefect", "", self._answers, begin=begin, mark={}, log=log)
        self._home, self._port = home, port

    def why_ended(self) -> str:
        """Return that no keeper is at it, '' while one is."""
        starting = self.process is not None and self.process.poll() is None
        return "" if starting or keeper_of(self._home) else "its server ended"

    def clear(self) -> None:
        """Kill keeper and server, unless others need them."""
        if (keeper := keeper_of(self._home)) and not other_leases(self._home):
            kill_session(keeper)
        if self.process is not None and not other_leases(self._home):
            self.process.wait()

    def ask_to_end(self) -> None:
        """Give our lease back: the keeper ends when nobody has one."""
        self.state, self.detail = State.STOPPING, ""
        drop_lease(self._home)

    def end(self, may_wait: Callable[[], bool]) -> None:
        """Return when it has ended, or others keep it."""
        while keeper_of(self._home) and not other_leases(self._home):
            if not may_wait():
                self.clear()
            time.sleep(0.1)
        if others := other_leases(self._home) if keeper_of(self._home) else []:
            self.state, self.detail = State.READY, f"stays until process {others[0]}, which uses it, ends"
        elif self.state is not State.FAILED:
            self.state, self.detail = State.STOPPED, ""

    def _answers(self) -> bool:
        url = live_prefect(self._home)
        if not url:
            return False
        self.address = url
        shared = "was running already" if self.process is None else ""
        self.note = shared or other_port(self._port, int(url.rpartition(":")[2]))
        return True


class FlowWorker(Started):
    """Prefect's worker. A flow that it has started outlives it, and tells Prefect itself how it ends."""

    def clear(self) -> None:
        """Kill the worker alone: what it runs goes on."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def ask_to_end(self) -> None:
        """Ask the flows to end. A worker that is told to end would kill them, and Prefect believe that they run."""
        self.state, self.detail = State.STOPPING, ""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)  # or it would start the next flow that waits for a place
        for process in self._flows():
            with suppress(psutil.NoSuchProcess):
                process.terminate()

    def end(self, may_wait: Callable[[], bool]) -> None:
        """Return when flows and worker have ended; they are killed when we may not wait any more."""
        while self._flows() and may_wait():
            time.sleep(0.1)
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.send_signal(signal.SIGCONT)
        super().end(may_wait)

    def _flows(self) -> list[psutil.Process]:
        worker = self.process.pid if self.process is not None else 0
        return [process for process in family(self.mark) if process.pid != worker]

"""The platform with somebody in between: links that can be cut, small disks, and what compose.yaml's `restart` does."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.platform.links import Link
from tests.platform.stack import NODES, Stack
from tests.processes import command_of, send
from tests.small_disk import filled, mount, unmount

RESTART_SECONDS = 2.0
DISKS = {"postgres": 768, "s3": 2048, "ray": 2048, "home": 512}
"""Megabytes of the disk of each that keeps something."""


@dataclass(frozen=True)
class Fault:
    """What happens to whom."""

    target: str
    kind: str

    def __str__(self) -> str:
        return f"{self.target}: {self.kind}"


SERVICES = {
    "Prefect server": "prefect",
    "Prefect worker": "worker",
    "MLflow server": "mlflow",
    "Postgres": "postgres",
    "S3": "s3",
    "Ray head": "ray",
    "Ray node": "node",
}
PROCESSES = {
    "flow process": "prefect.engine",
    "training worker": "ray::RayTrainWorker",
    "generation worker": "ray::ShardActor",
}
"""What their command line tells them by; nobody but the platform starts them again."""

LINKS = {
    "flow process": ("flow", "s3", "mlflow", "jobs"),
    "Prefect server": ("flow", "prefect"),
    "Prefect worker": ("prefect",),
    "MLflow server": ("mlflow",),
    "Postgres": ("postgres",),
    "S3": ("s3",),
    "Ray head": ("jobs",),
}
FULL = {"flow process": "home", "Postgres": "postgres", "S3": "s3", "Ray node": "ray"}

KILL, STOP, CUT, DISK = "SIGKILL", "SIGSTOP 60 s", "cut 30 s", "disk full 20 s"
KINDS = {KILL: 0.0, STOP: 60.0, CUT: 30.0, DISK: 20.0}
"""How many seconds each lasts; what is killed is dead for longer."""

TARGETS = (*PROCESSES, *SERVICES)
FAULTS = (
    *(Fault(target, kind) for target in TARGETS for kind in (KILL, STOP)),
    *(Fault(target, CUT) for target in LINKS),
    *(Fault(target, DISK) for target in FULL),
)
NOT_INJECTED = (
    "A cut network of a Ray node, a training worker or a generation worker: Ray chooses their ports, and no link can be "
    "put between; a stopped node is the nearest to it that is here.",
    "A full disk of the Prefect and MLflow servers: they keep nothing but what is in Postgres and S3.",
    "A full disk of the workers: theirs is their node's.",
)


class FaultyStack(Stack):
    """A platform whose dead services are started again, as compose.yaml's are, and that can be hurt."""

    def __init__(self, folder: Path) -> None:
        self.links: dict[str, Link] = {}
        super().__init__(folder)
        self.links["flow"] = Link(self.ports["prefect"])
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._restart_the_dead, daemon=True)
        self.restarts: list[str] = []

    def door(self, name: str) -> int:
        """Return the port of the link to a service."""
        if name not in self.links:
            self.links[name] = Link(self.ports[name])
        return self.links[name].port

    @property
    def disks(self) -> dict[str, Path]:
        """Return the folder of each small disk."""
        return {
            "postgres": self.outside / "postgres",
            "s3": self.folder / "s3",
            "ray": self.outside / "ray",
            "home": self.home,
        }

    def bring_up(self) -> None:
        """Mount the disks and start all. Raises PermissionError where disks may not be mounted."""
        for name, folder in self.disks.items():
            folder.mkdir(exist_ok=True)
            if refused := mount(folder, DISKS[name]):
                raise PermissionError(f"small disks are mounted as root: {refused}")
        (self.home / "prefect").mkdir(exist_ok=True)
        super().bring_up()
        self._keeper.start()

    def take_down(self) -> None:
        """End all, and take the disks away."""
        self._over.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for service in self.services.values():
            service.signal(signal.SIGCONT)
        for folder in self.disks.values():
            if folder.is_mount():
                unmount(folder)
        super().take_down()
        for link in self.links.values():
            link.close()

    def flow_environment(self, number: str) -> dict[str, str]:
        """Return what a run needs for an artifact store and a link of its own."""
        return {
            "GENAI_STORAGE_URI": f"s3://genai/{number}",
            "PREFECT_API_URL": f"http://127.0.0.1:{self.links['flow'].port}/api",
        }

    def victims(self, target: str, draw: random.Random) -> list[psutil.Process]:
        """Return the processes that are one such target now."""
        if target in PROCESSES:
            found = self.processes(PROCESSES[target])
            return [draw.choice(found)] if found else []
        name = SERVICES[target]
        return self.services[f"node-{draw.randint(2, NODES)}" if name == "node" else name].family()

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the processes of the platform with this in their command line."""
        family = [one for service in self.services.values() for one in service.family()]
        return [one for one in family if name in command_of(one)]

    @contextmanager
    def hurt(self, fault: Fault, draw: random.Random) -> Iterator[None]:
        """Let a fault be for as long as the block takes; a killed process is dead for longer."""
        with ExitStack() as ends:
            if fault.kind == CUT:
                for name in LINKS[fault.target]:
                    ends.enter_context(self.links[name].cut())
            elif fault.kind == DISK:
                if fault.target == "S3":  # its index takes nothing more, disk or no disk, until it is started again
                    ends.callback(lambda: send(self.victims("S3", draw), signal.SIGKILL))
                ends.enter_context(filled(self.disks[FULL[fault.target]]))
            else:
                victims = self.victims(fault.target, draw)
                send(victims, signal.SIGKILL if fault.kind == KILL else signal.SIGSTOP)
                if fault.kind == STOP:
                    ends.callback(send, victims, signal.SIGCONT)
            yield

    def _restart_the_dead(self) -> None:
        """Start what has ended, after a while, as `restart: unless-stopped` does."""
        while not self._over.wait(0.5):
            for service in self.services.values():
                if service.process is not None and service.process.poll() is not None:
                    if self._over.wait(RESTART_SECONDS):
                        return
                    self.restarts.append(service.name)
                    service.launch()


def wait_until(what: Callable[[], object], seconds: float) -> bool:
    """Return whether something came true within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.25)
    return False

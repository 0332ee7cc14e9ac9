"""`genai up`: the whole platform on this machine, until Ctrl-C. `genai ui` is its pages alone.

    prefect   server of the home, shared with every `genai run` on it (services.py)
    mlflow    server over the home's database
    ray       head with its job server, on loopback always
    worker    Prefect's worker of the pool `genai`: runs the deployments on this Ray, this MLflow, this store

What GENAI_* settings or PREFECT_API_URL name is used as it is, and only the rest is started.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from genai_core.cli.asking import ask, mlflow_credentials
from genai_core.cli.board import Board
from genai_core.cli.flow_worker import POOL, RECIPES, online_workers, project_folder, worker_name
from genai_core.cli.kept import FlowWorker, KeptPrefect, other_port
from genai_core.cli.services import (
    answers,
    forget_address,
    free_port,
    launch,
    outside_prefect,
    prefect_environment,
    services_folder,
    url_of,
    write_address,
)
from genai_core.cli.supervise import Service, Started, State, tail, take_down, watch
from genai_core.config.settings import Settings, read_settings
from genai_core.errors import ConfigError, TransientError
from genai_core.launch.head import head_command, head_environment, job_server, ray_credentials
from genai_core.launch.quiet import SILENCE
from genai_core.launch.sessions import end_family
from genai_core.storage.open import open_store
from genai_core.tracking.connection import check_address
from genai_core.tracking.secrets import shown
from genai_core.tracking.server import PASSWORD, SECRET, asks_for_passwords, client_credentials

PAGES = ("prefect", "mlflow")
ALL = (*PAGES, "ray", "worker")
MARK = "GENAI_UP"
PREFECT_PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"


@dataclass(frozen=True)
class Ports:
    """Where servers are wanted; 0, or one that is taken: any free one."""

    prefect: int = 4200
    mlflow: int = 5000
    ray: int = 8265


def serve(host: str, ports: Ports, names: Sequence[str] = ALL) -> int:
    """Start the named services, keep them up until Ctrl-C or SIGTERM, take them down; return the exit code."""
    settings = read_settings()
    check_host(host, names, settings)
    check_address(settings.tracking_uri)
    asks_for_passwords(os.environ)
    with only_one(settings.home):
        if left := end_family({MARK: str(settings.home)}):
            Console(stderr=True).print(f"Ended {left} processes that a killed genai up had left behind.")
        open_store(settings.storage_uri, settings)
        return Platform(settings, host, ports, names).run()


def check_host(host: str, names: Sequence[str], settings: Settings) -> None:
    """Refuse to open a server without passwords to a network. Raises ConfigError that names what is missing."""
    if is_loopback(host):
        return
    wanted = []
    if "prefect" in names and not outside_prefect():
        wanted.append(PREFECT_PASSWORD)
    if "mlflow" in names and settings.tracking_uri.startswith("sqlite:"):
        wanted += [PASSWORD, SECRET]
    if missing := [name for name in wanted if not os.environ.get(name)]:
        raise ConfigError(
            f"--host {host} would open servers without passwords to the network. Set {', '.join(missing)} "
            f"({PREFECT_PASSWORD}=NAME:PASSWORD guards Prefect, the MLFLOW ones MLflow), or stay on 127.0.0.1 and "
            "reach it through an SSH tunnel."
        )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address. Raises ConfigError if it is none."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise ConfigError(f"--host {host!r} is not an IP address. Give 127.0.0.1, or that of a network card.") from None


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold a home's lock. Raises ConfigError if another `genai up` or `genai ui` does."""
    with (services_folder(home) / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise ConfigError(
                f"genai up or genai ui is already running on {home} (process {lock.read()}). Stop it first, or set "
                "GENAI_HOME to another folder."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


class Platform:
    """The services of one home, from start to end."""

    def __init__(self, settings: Settings, host: str, ports: Ports, names: Sequence[str]) -> None:
        self.settings = settings
        self.home = settings.home
        self.host = host
        self.ports = ports
        self.names = names
        self.worker_name = ""
        self._workers = 0

    def run(self) -> int:
        """Start, watch, take down."""
        stopped, hurry = threading.Event(), threading.Event()

        def stop(*_: Any) -> None:
            (hurry if stopped.is_set() else stopped).set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, stop)
        made = {"prefect": self.prefect, "mlflow": self.mlflow, "ray": self.ray, "worker": self.worker}
        services: list[Service] = [made[name] for name in self.names]
        failed: Service | None = None
        with Board(services) as board:
            try:
                watch(services, board.show, stopped)
                failed = next((one for one in services if one.state is State.FAILED), None)
            finally:
                # flows first, while what they report to is there; Prefect last
                first, last = [one for one in services if one.name == "worker"], services[:1]
                rest = [one for one in services if one not in (*first, *last)]
                take_down([first, rest, last], {MARK: str(self.home)}, board.show, hurry)
                for name in ("mlflow", "ray"):
                    forget_address(self.home, name)
                remove_ray_folder(self.home)
        if isinstance(failed, Started):
            raise TransientError(f"{failed.name} failed: {failed.detail}\n{tail(failed.log)}")
        return 0

    @cached_property
    def prefect(self) -> Service:
        """Prefect's server."""
        if api := outside_prefect():
            return Service("prefect", api, lambda: answers(f"{api}/health"), "not ours: PREFECT_API_URL")
        return KeptPrefect(self.home, self.ports.prefect, self.host)

    @cached_property
    def mlflow(self) -> Service:
        """MLflow's server."""
        uri = self.settings.tracking_uri
        if uri.startswith(("http:", "https:")):
            healthy = lambda: ask(f"{uri.rstrip('/')}/health", headers=mlflow_credentials()).good  # noqa: E731
            return Service("mlflow", shown(uri), healthy, "not ours: GENAI_TRACKING_URI")
        if not uri.startswith("sqlite:"):
            return Service("mlflow", shown(uri), lambda: True, "a database without server: GENAI_TRACKING_URI")
        port = free_port(self.ports.mlflow, self.host)
        url = url_of(self.host, port)
        command = [sys.executable, "-m", "genai_core.tracking.server", uri, str(self.home), self.host, str(port)]
        return self._started(
            "mlflow",
            url,
            lambda: answers(f"{url}/health"),
            lambda: command,
            lambda: {} if is_loopback(self.host) else {"MLFLOW_SERVER_ALLOWED_HOSTS": allowed_hosts(self.host)},
            note=other_port(self.ports.mlflow, port),
        )

    @cached_property
    def ray(self) -> Service:
        """Ray's head, or the job server of another cluster."""
        if address := self.settings.ray_address:
            url = job_server(address)
            healthy = lambda: ask(f"{url}/api/version", headers=ray_credentials()).good  # noqa: E731
            return Service("ray", shown(address), healthy, "not ours: GENAI_RAY_ADDRESS")
        port = free_port(self.ports.ray)
        url = url_of("127.0.0.1", port)
        return self._started(
            "ray",
            url,
            lambda: ask(f"{url}/api/version", headers=ray_credentials()).good,
            lambda: head_command(port, free_port(), ray_folder(self.home)),
            lambda: head_environment(os.environ),
            note=other_port(self.ports.ray, port),
        )

    @cached_property
    def worker(self) -> Service:
        """Prefect's worker; it starts when all the others are ready."""

        def command() -> list[str]:
            self._workers += 1  # another name each time: Prefect believes a dead worker alive for a while
            self.worker_name = worker_name(self.home, os.getpid(), self._workers)
            return [sys.executable, "-m", "genai_core.cli.flow_worker", self.worker_name]

        return self._started(
            "worker",
            f"pool {POOL}",
            self._worker_is_online,
            command,
            self.worker_environment,
            note=f"deployments: {', '.join(RECIPES)}",
            after=(self.prefect, self.mlflow, self.ray),
            kind=FlowWorker,
        )

    @property
    def prefect_api(self) -> str:
        """Return the address of Prefect's API."""
        return outside_prefect() or f"{self.prefect.address}/api"

    def _worker_is_online(self) -> bool:
        try:
            return self.worker_name in online_workers(self.prefect_api)
        except TransientError:
            return False

    def worker_environment(self) -> dict[str, str]:
        """Return the environment of the worker, which its flows inherit: this Ray, this MLflow, this store."""
        storage = self.settings.storage_uri
        return {
            **prefect_environment(self.home),
            "PREFECT_API_URL": self.prefect_api,
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",  # its console is the log
            "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "3"),
            "PREFECT_WORKER_HEARTBEAT_SECONDS": os.environ.get("PREFECT_WORKER_HEARTBEAT_SECONDS", "10"),
            # flows run in another folder
            "GENAI_STORAGE_URI": storage if "://" in storage else str(Path(storage).absolute()),
            "GENAI_TRACKING_URI": self.mlflow.address
            if isinstance(self.mlflow, Started)
            else self.settings.tracking_uri,
            "GENAI_RAY_ADDRESS": self.ray.address if isinstance(self.ray, Started) else self.settings.ray_address,
            "GENAI_PROJECT": str(project_folder()),
        }

    def _started(
        self,
        name: str,
        address: str,
        healthy: Callable[[], bool],
        command: Callable[[], list[str]],
        environment: Callable[[], dict[str, str]],
        note: str = "",
        after: Sequence[Service] = (),
        kind: type[Started] = Started,
    ) -> Started:
        """Return a service that is a process of ours."""
        mark = {MARK: str(self.home), f"{MARK}_SERVICE": name}
        log = self.home / "logs" / f"{name}.log"
        fixed = {
            "GENAI_HOME": str(self.home),
            "GENAI_SCRATCH": str(self.settings.scratch),
            **client_credentials(os.environ),
            **mark,
        }

        def begin() -> subprocess.Popen[bytes]:
            explicit = {key: os.environ.get(key, value) for key, value in SILENCE.items()}
            return launch(command(), {**os.environ, **explicit, **environment(), **fixed}, log)

        on_ready = (lambda: None) if name == "worker" else (lambda: write_address(self.home, name, address))
        return kind(name, address, healthy, note, after, begin=begin, mark=mark, log=log, on_ready=on_ready)


def ray_folder(home: Path) -> Path:
    """Return a new folder for a Ray of a home; that of one before it is removed."""
    remove_ray_folder(home)
    folder = tempfile.mkdtemp(prefix="genai-ray-")  # its path is short: sockets lie in it
    (services_folder(home) / "ray-folder").write_text(folder)
    return Path(folder)


def remove_ray_folder(home: Path) -> None:
    """Remove the folder of a home's Ray, if there is one."""
    memory = services_folder(home) / "ray-folder"
    if memory.exists():
        shutil.rmtree(memory.read_text(), ignore_errors=True)
        memory.unlink()


def allowed_hosts(host: str) -> str:
    """Return the names under which MLflow lets itself be called from other machines."""
    names = {"localhost", "127.0.0.1", host, socket.gethostname(), socket.getfqdn()} - {"0.0.0.0", "::"}
    return ",".join(part for name in sorted(names) for part in (name, f"{name}:*"))

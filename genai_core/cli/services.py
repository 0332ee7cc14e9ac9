"""Local servers that several of our processes share, found through checked address files.

SQLite has one writer: two Prefect servers on one database lock each other out. So there is one keeper process for each
home folder. It starts the Prefect server, writes its address, and stops it when nobody holds a lease any more. Every
`genai run`, `genai up` and `genai ui` holds a lease: a file named by its process id, worthless when that process is gone.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genai_core.cli.asking import ask
from genai_core.errors import TransientError

if TYPE_CHECKING:
    from genai_core.config.settings import Settings

START_SECONDS = 90.0
LINGER_SECONDS = 5.0
"""A server outlives its last lease by so much, for a run that starts just then."""


def services_folder(home: Path) -> Path:
    """Return the folder of address files and leases."""
    folder = home / "services"
    (folder / "leases").mkdir(parents=True, exist_ok=True)
    return folder


def answers(url: str, seconds: float = 2.0) -> bool:
    """Return whether a server answers at a URL."""
    return ask(url, seconds=seconds).good


def outside_prefect() -> str:
    """Return the address of a Prefect API that is not ours to start, '' if there is none."""
    return os.environ.get("PREFECT_API_URL", "").rstrip("/")


def read_address(home: Path, service: str) -> str:
    """Return the address in a service's file, '' if there is none."""
    path = services_folder(home) / f"{service}.json"
    try:
        return str(json.loads(path.read_text())["url"])
    except (OSError, ValueError, KeyError):
        return ""


def write_address(home: Path, service: str, url: str) -> None:
    """Write a service's address file, atomically."""
    path = services_folder(home) / f"{service}.json"
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    draft.rename(path)


def live_mlflow(home: Path) -> str:
    """Return the address of the MLflow server that `genai up` or `genai ui` runs on this home, '' if none answers."""
    url = read_address(home, "mlflow")
    return url if url and answers(f"{url}/health") else ""


def forget_address(home: Path, service: str) -> None:
    """Remove a service's address file, if this process has written it."""
    path = services_folder(home) / f"{service}.json"
    try:
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()
    except (OSError, ValueError, KeyError):
        return


def live_prefect(home: Path) -> str:
    """Return the address of this home's Prefect server, '' if none answers."""
    url = read_address(home, "prefect")
    return url if url and answers(f"{url}/api/health") else ""


def known_prefect(home: Path) -> str:
    """Return the API of the Prefect server that is named, else of this home's; '' if there is none."""
    if named := outside_prefect():
        return named
    return f"{served}/api" if (served := live_prefect(home)) else ""


def known_ray(settings: Settings) -> str:
    """Return the address of the Ray job server that is named, else of this home's; '' if there is none."""
    return settings.ray_address or read_address(settings.home, "ray")


def free_port(wanted: int = 0, host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on at an address: the wanted one if it is free."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError:
            probe.bind((host, 0))
        return int(probe.getsockname()[1])


def url_of(host: str, port: int) -> str:
    """Return the URL under which this machine reaches a server that listens on an address."""
    if host in {"0.0.0.0", "::"}:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def launch(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process that leads a session, its output appended to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def hold_lease(home: Path) -> Path:
    """Keep the home's Prefect server alive as long as this process lives; return the lease."""
    lease = services_folder(home) / "leases" / str(os.getpid())
    lease.touch()
    return lease


def drop_lease(home: Path) -> None:
    """Give this process's lease back, and let a keeper that nobody else needs end without lingering."""
    (services_folder(home) / "leases" / str(os.getpid())).unlink(missing_ok=True)
    if (keeper := keeper_of(home)) and not other_leases(home):
        os.kill(keeper, signal.SIGTERM)


def begin_prefect(home: Path, port: int = 0, host: str = "127.0.0.1") -> subprocess.Popen[bytes] | None:
    """Have the home's Prefect server started if it is not running; return its keeper, if there was none, at once."""
    hold_lease(home)
    if live_prefect(home):
        return None
    command = [sys.executable, "-m", "genai_core.cli.services", str(home), str(port), host]
    return launch(command, os.environ, home / "logs" / "prefect.log")


def await_prefect(home: Path) -> str:
    """Return the address of the home's Prefect server once it answers. Raises TransientError after a minute and a half."""
    deadline = time.monotonic() + START_SECONDS
    next_start = time.monotonic() + 15.0
    while time.monotonic() < deadline:
        if url := live_prefect(home):
            return url
        if time.monotonic() > next_start:  # the keeper of a run that ended just now may have gone with it
            begin_prefect(home)
            next_start = time.monotonic() + 30.0
        time.sleep(0.1)
    raise TransientError(
        f"Prefect's server did not start within {START_SECONDS:.0f} s; see {home / 'logs' / 'prefect.log'}."
    )


def prefect_environment(home: Path) -> dict[str, str]:
    """Return the variables under which Prefect keeps everything below our home and says nothing on the console."""
    password = os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("PREFECT_SERVER_API_AUTH_STRING", "")
    return {
        **({"PREFECT_API_AUTH_STRING": password} if password else {}),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect' / 'prefect.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }


def alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"


def other_leases(home: Path) -> list[int]:
    """Return the living processes that hold a lease, without this one; forget the dead ones."""
    pids = []
    for lease in (services_folder(home) / "leases").iterdir():
        if not alive(int(lease.name)):
            lease.unlink(missing_ok=True)
        elif int(lease.name) != os.getpid():
            pids.append(int(lease.name))
    return sorted(pids)


def keeper_of(home: Path) -> int:
    """Return the process id of the keeper that works on a home, 0 if there is none."""
    try:
        pid = int((services_folder(home) / "keeper.lock").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return 0
    return pid if alive(pid) and b"genai_core.cli.services" in command else 0


def die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent dies, in whatever way."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG


def keep(home: Path, port: int, host: str = "127.0.0.1") -> None:
    """Run the Prefect server of a home until nobody needs it; at most one keeper works on a home.

    SIGTERM: as soon as there is no lease, without lingering.
    """
    folder = services_folder(home)
    hurry = False

    def hasten(*_: Any) -> None:
        nonlocal hurry
        hurry = True

    signal.signal(signal.SIGTERM, hasten)
    with (folder / "keeper.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # another keeper is at it
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        (home / "prefect").mkdir(parents=True, exist_ok=True)
        port = free_port(port, host)
        url = url_of(host, port)
        seen = url if host not in {"0.0.0.0", "::"} else f"http://{socket.gethostname()}:{port}"  # by a browser
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)],
            env={**os.environ, **prefect_environment(home), "PREFECT_UI_API_URL": f"{seen}/api"},
            # a keeper that is killed must not leave a server that nobody stops; it has no threads
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )
        try:
            announced = False
            idle_since: float | None = None
            while server.poll() is None:
                if not announced and answers(f"{url}/api/health"):
                    write_address(home, "prefect", url)
                    announced = True
                if other_leases(home):
                    idle_since = None
                else:
                    idle_since = idle_since or time.monotonic()
                    if hurry or time.monotonic() - idle_since > LINGER_SECONDS:
                        break
                time.sleep(0.25 if hurry or not announced else 1.0)
        finally:
            forget_address(home, "prefect")
            server.terminate()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()


if __name__ == "__main__":
    keep(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])

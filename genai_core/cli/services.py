"""Local servers that several of our processes share, found through checked address files.

SQLite has one writer: two Prefect servers on one database lock each other out. So there is one keeper process for each
home folder. It starts the Prefect server, writes its address, and stops it when nobody holds a lease any more. Every
`genai run` and `genai ui` holds a lease: a file named by its process id, worthless when that process is gone.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from genai_core.errors import TransientError

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
    try:
        with urllib.request.urlopen(url, timeout=seconds) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


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
    """Return the address of the MLflow server that `genai ui` runs on this home, '' if none answers."""
    url = read_address(home, "mlflow")
    return url if url and answers(f"{url}/health") else ""


def live_prefect(home: Path) -> str:
    """Return the address of this home's Prefect server, '' if none answers."""
    url = read_address(home, "prefect")
    return url if url and answers(f"{url}/api/health") else ""


def free_port(wanted: int = 0) -> int:
    """Return a port on loopback that nobody listens on: the wanted one if it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def hold_lease(home: Path) -> Path:
    """Keep the home's Prefect server alive as long as this process lives; return the lease."""
    lease = services_folder(home) / "leases" / str(os.getpid())
    lease.touch()
    return lease


def begin_prefect(home: Path, port: int = 0) -> None:
    """Have the home's Prefect server started if it is not running; returns without waiting."""
    hold_lease(home)
    if live_prefect(home):
        return
    log = home / "logs" / "prefect.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        subprocess.Popen(
            [sys.executable, "-m", "genai_core.cli.services", str(home), str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


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
    return {
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


def leases_left(home: Path) -> bool:
    """Return whether any process that holds a lease is alive; forget the others."""
    left = False
    for lease in (services_folder(home) / "leases").iterdir():
        if alive(int(lease.name)):
            left = True
        else:
            lease.unlink(missing_ok=True)
    return left


def keep(home: Path, port: int) -> None:
    """Run the Prefect server of a home until nobody needs it; at most one keeper works on a home."""
    folder = services_folder(home)
    with (folder / "keeper.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # another keeper is at it
        (home / "prefect").mkdir(parents=True, exist_ok=True)
        port = free_port(port)
        url = f"http://127.0.0.1:{port}"
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, **prefect_environment(home), "PREFECT_UI_API_URL": f"{url}/api"},
        )
        try:
            announced = False
            idle_since: float | None = None
            while server.poll() is None:
                if not announced and answers(f"{url}/api/health"):
                    write_address(home, "prefect", url)
                    announced = True
                if leases_left(home):
                    idle_since = None
                else:
                    idle_since = idle_since or time.monotonic()
                    if time.monotonic() - idle_since > LINGER_SECONDS:
                        break
                time.sleep(0.25 if not announced else 1.0)
        finally:
            (folder / "prefect.json").unlink(missing_ok=True)
            server.terminate()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()


if __name__ == "__main__":
    keep(Path(sys.argv[1]), int(sys.argv[2]))

"""This machine: Python, packages, memory, cores, disks, ports."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from genai_core.cli.findings import Finding, judge, note
from genai_core.cli.recipes import human_bytes
from genai_core.cli.services import free_port, outside_prefect, read_address
from genai_core.cli.up import Ports
from genai_core.config.settings import Settings
from genai_core.launch.cluster import cores

EXPECTED = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "prefect": "3.8.8",
    "fastapi": "0.150.0",
    "ray": "2.60.0",
    "mlflow": "3.17.2",
    "datasets": "5.2.0",
    "peft": "0.21.2",
}
ENOUGH_DISK = 5_000_000_000
ENOUGH_TEMPORARY = 1_000_000_000
ENOUGH_MEMORY = 4_000_000_000
ENOUGH_SHARED = 300_000_000
LONGEST_TMPDIR = 60
CGROUP = Path("/sys/fs/cgroup")


def look_at_machine() -> Iterator[Finding]:
    """Yield what can be said without settings."""
    python = platform.python_version()
    yield judge(python.startswith(("3.11", "3.12")), "python", python, "use Python 3.11 or 3.12")
    for name, wanted in EXPECTED.items():
        try:
            found = version(name).split("+")[0]
        except PackageNotFoundError:
            found = "missing"
        yield judge(found == wanted, name, found, f"pip install -c constraints.txt {name}=={wanted}")
    memory = available_memory()
    yield judge(
        memory > ENOUGH_MEMORY,
        "memory",
        f"{human_bytes(memory)} available",
        f"end other programs, or give the container more: {human_bytes(ENOUGH_MEMORY)} are enough",
    )
    count = cores()
    if count >= 2:
        yield judge(True, "cores", str(count))
    else:
        yield note("cores", str(count), "one core works, slowly")
    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
    yield judge(shared > ENOUGH_SHARED, "shared memory", human_bytes(shared), "give the container --shm-size=1g")
    temporary = tempfile.gettempdir()
    free = shutil.disk_usage(temporary).free
    remedy = "set TMPDIR to a short path: Ray's sockets lie there"
    if free < ENOUGH_TEMPORARY:
        remedy = f"free {human_bytes(ENOUGH_TEMPORARY)} there, or set TMPDIR: Ray's session lies there"
    yield judge(
        len(temporary) < LONGEST_TMPDIR and free > ENOUGH_TEMPORARY,
        "temporary",
        f"{human_bytes(free)} free at {temporary}",
        remedy,
    )


def available_memory() -> int:
    """Return how many bytes new processes may use: of the machine, or of the container if that has fewer."""
    available = int(psutil.virtual_memory().available)
    try:
        limit, used = ((CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        return available if limit == "max" else min(available, int(limit) - int(used))
    except (OSError, ValueError):  # no cgroup of the second version
        return available


def look_at_disks(settings: Settings) -> Iterator[Finding]:
    """Yield the free space of each disk that the home, the scratch folder and a local store lie on."""
    places = [settings.home, settings.scratch]
    if "://" not in settings.storage_uri:
        places.append(Path(settings.storage_uri))
    seen = set()
    for place in places:
        there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
        if (device := there.stat().st_dev) in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(there).free
        yield judge(
            free > ENOUGH_DISK,
            "disk",
            f"{human_bytes(free)} free at {place}",
            f"free {human_bytes(ENOUGH_DISK)}: genai storage gc --dry-run tells what could go",
        )


def look_at_ports(settings: Settings, ports: Ports | None = None) -> Iterator[Finding]:
    """Yield a note for each port that `genai up` would want and somebody else has; one line if there is none."""
    ports = ports or Ports()
    wanted = {} if outside_prefect() else {"prefect": ports.prefect}
    if settings.tracking_uri.startswith("sqlite:"):
        wanted["mlflow"] = ports.mlflow
    if not settings.ray_address:
        wanted["ray"] = ports.ray
    ours = {name for name, port in wanted.items() if read_address(settings.home, name).endswith(f":{port}")}
    taken = {name: port for name, port in wanted.items() if free_port(port) != port and name not in ours}
    for name, port in taken.items():
        yield note(
            "ports",
            f"{port}, which genai up wants for {name}, is taken{holder_of(port)}",
            f"it takes another and says which; for a fixed one: genai up --{name}-port PORT",
        )
    if wanted and not taken:
        said = ", ".join(
            f"{port} {'serves our ' + name if name in ours else 'is free'}" for name, port in wanted.items()
        )
        yield judge(True, "ports", said)


def holder_of(port: int) -> str:
    """Return who listens on a port, '' where that cannot be seen: processes of other users."""
    try:
        for connection in psutil.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return ""

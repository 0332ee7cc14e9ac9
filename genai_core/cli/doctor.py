"""`genai doctor`: is this installation able to run, and what to do if not."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.text import Text

from genai_core.cli.options import settings_of
from genai_core.cli.recipes import human_bytes
from genai_core.cli.services import live_mlflow, live_prefect
from genai_core.errors import GenaiCoreError

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
ENOUGH_MEMORY = 4_000_000_000


def examine() -> int:
    """Print one line for each thing looked at; return 1 if something would keep a run from working."""
    console = Console(highlight=False)
    faults = 0

    def say(good: bool, what: str, detail: str, remedy: str = "") -> None:
        nonlocal faults
        faults += not good
        mark = Text("ok  ", style="green") if good else Text("BAD ", style="bold red")
        console.print(Text.assemble(mark, f"{what:<14}", detail, "" if good else f"  -> {remedy}"))

    python = platform.python_version()
    say(python.startswith(("3.11", "3.12")), "python", python, "use Python 3.11 or 3.12")
    for name, wanted in EXPECTED.items():
        try:
            found = version(name).split("+")[0]
        except PackageNotFoundError:
            found = "missing"
        say(found == wanted, name, found, f"pip install -c constraints.txt {name}=={wanted}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    say(memory > ENOUGH_MEMORY, "memory", f"{human_bytes(memory)} free", f"free {human_bytes(ENOUGH_MEMORY)}")
    cores = len(os.sched_getaffinity(0))
    say(cores >= 2, "cores", str(cores), "one core works, slowly")
    try:
        settings = settings_of()
    except GenaiCoreError as error:
        say(False, "settings", str(error), "correct the GENAI_* variables")
        return 1
    settings.home.mkdir(parents=True, exist_ok=True)
    disk = shutil.disk_usage(settings.home).free
    say(disk > ENOUGH_DISK, "disk", f"{human_bytes(disk)} free at {settings.home}", f"free {human_bytes(ENOUGH_DISK)}")
    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
    say(shared > 300_000_000, "shared memory", human_bytes(shared), "give the container --shm-size=1g")
    say(
        len(tempfile.gettempdir()) < 60,
        "temporary",
        tempfile.gettempdir(),
        "set TMPDIR to a short path: Ray's sockets lie there",
    )
    from genai_core.storage.open import open_store

    try:
        open_store(settings.storage_uri, settings)
        say(True, "store", settings.storage_uri)
    except GenaiCoreError as error:
        say(False, "store", str(error), "see above")
    say(True, "tracking", settings.tracking_uri)
    say(
        True, "prefect", os.environ.get("PREFECT_API_URL") or live_prefect(settings.home) or "starts with the first run"
    )
    say(True, "mlflow ui", live_mlflow(settings.home) or "not running; `genai ui` starts it")
    console.print("All good." if not faults else f"{faults} to mend.")
    return 1 if faults else 0

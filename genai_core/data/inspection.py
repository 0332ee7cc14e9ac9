"""Signatures and documentation of objects that only an import can tell: made in a sandboxed child process.

Importing a module runs its code, and some open a browser (antigravity), print (this) or start a window system. So
nothing is imported here: a child does it, alone (`python -I`), without stdin, environment or network, unable to write
files or start programs, under limits of CPU, memory and time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genai_core.errors import StageFailedError

CHILD = Path(__file__).with_name("inspection_child.py")
CPU_SECONDS = 60
WALL_SECONDS = 120
MEMORY_BYTES = 4 << 30  # address space, not use: shared libraries map a lot


def inspect_modules(
    modules: Sequence[str], *, wall_seconds: float = WALL_SECONDS, cpu_seconds: int = CPU_SECONDS
) -> dict[str, dict[str, Any]]:
    """Return {module: {dotted name: {"kind", "doc", "home", "signature"?, "parameters"?}}}; unimportable ones are left out.

    `parameters` is [[name, kind, has_default], ...]; it is missing where the signature is unknown.

    Raises:
        StageFailedError: the child crashed or ran out of time; names the module after which it stopped.
    """
    order = {"modules": list(modules), "cpu_seconds": cpu_seconds, "memory_bytes": MEMORY_BYTES}
    with tempfile.TemporaryDirectory(prefix="genai-inspect-") as empty:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(CHILD), json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=empty,
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": empty, "TERM": "dumb"},
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=wall_seconds)
            reason = f"ended with code {process.returncode}"
        except subprocess.TimeoutExpired:
            _kill_group(process)
            output, _ = process.communicate()
            reason = f"was stopped after {wall_seconds:g} seconds"
        finally:
            _kill_group(process)
    rows = [json.loads(line) for line in output.decode().splitlines() if line.endswith("}")]
    if process.returncode or len(rows) != len(modules):
        last = rows[-1]["module"] if rows else "none"
        raise StageFailedError(
            f"Reading the documentation of the standard library {reason}; the last module read was {last}, the one after "
            f"it could not be imported under {cpu_seconds} CPU seconds and {MEMORY_BYTES >> 30} GiB. Run again; if it "
            "stops at the same module, that module is broken in this Python installation."
        )
    return {row["module"]: row["objects"] for row in rows if "objects" in row}


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)

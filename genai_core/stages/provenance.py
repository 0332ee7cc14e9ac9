"""What a manifest tells beside the digest: versions and the machine. Recorded, never part of an identity."""

from __future__ import annotations

import os
import platform
import socket
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import genai_core

LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "ray", "mlflow", "prefect", "peft", "numpy")


def describe_environment() -> dict[str, Any]:
    """Return versions of Python and the libraries that matter, the processor, and the time."""
    versions = {"genai": genai_core.__version__}  # of the code that runs: what is installed may be another
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def processor() -> str:
    """Return the processor's name: equal weights are promised only on one type of it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            names = [line.split(":", 1)[1].strip() for line in handle if line.startswith("model name")]
    except OSError:
        return platform.processor()
    return names[0] if names else platform.processor()

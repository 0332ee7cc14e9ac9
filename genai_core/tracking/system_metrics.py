"""How busy the machine is while a stage is computed, under the names by which MLflow's page has a tab for such metrics."""

from __future__ import annotations

import shutil
import subprocess
import threading

from genai_core.tracking.journal import Journal

EVERY_SECONDS = 10.0
PREFIX = "system/"
ASK_SECONDS = 5.0
NVIDIA = ("nvidia-smi", "--query-gpu=utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")


class SystemMetrics:
    """A thread that writes a sample into a journal every few seconds: CPU, memory and disk of this machine, and its GPUs."""

    def __init__(self, journal: Journal, every_seconds: float = EVERY_SECONDS) -> None:
        self._journal = journal
        self._every = every_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_over, name="system-metrics", daemon=True)

    def start(self) -> SystemMetrics:
        """Begin; the first sample comes after the first few seconds."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End; nothing is written afterwards."""
        self._over.set()
        self._thread.join()

    def _sample_until_over(self) -> None:
        sample_machine()  # CPU's use is what it was since the last look
        while not self._over.wait(self._every):
            sample = {f"{PREFIX}{name}": value for name, value in {**sample_machine(), **sample_gpus()}.items()}
            self._journal.metrics(1 + self._journal.last_step(next(iter(sample))), sample)


def sample_machine() -> dict[str, float]:
    """Return use of CPU (percent since the last look, of all cores), memory and the disk of the root (percent, megabytes)."""
    import psutil

    memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": round(memory.used / 1e6, 1),
        "system_memory_usage_percentage": memory.percent,
        "disk_usage_megabytes": round(disk.used / 1e6, 1),
        "disk_usage_percentage": disk.percent,
    }


def sample_gpus() -> dict[str, float]:
    """Return use of each NVIDIA GPU and of its memory (percent, megabytes); nothing where there is none.

    Its own program is asked, not torch: that would keep half a gigabyte of each GPU for a context in this process.
    """
    if shutil.which(NVIDIA[0]) is None:
        return {}
    try:
        said = subprocess.run(NVIDIA, capture_output=True, text=True, timeout=ASK_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return read_gpus(said)


def read_gpus(said: str) -> dict[str, float]:
    """Return what a line for each GPU says: its use in percent, used and total memory in MiB; a figure that is none is left out."""
    sample: dict[str, float] = {}
    for number, line in enumerate(said.splitlines()):
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and all(part.isdecimal() for part in parts):
            busy, used, total = map(float, parts)
            sample[f"gpu_{number}_utilization_percentage"] = busy
            sample[f"gpu_{number}_memory_usage_megabytes"] = round(used * 1.048576, 1)
            sample[f"gpu_{number}_memory_usage_percentage"] = round(100 * used / total, 1) if total else 0.0
    return sample

"""A small disk of its own under a folder, and a disk that is kept full."""

from __future__ import annotations

import errno
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

BLOCK_BYTES = 1 << 12


def mount(folder: Path, megabytes: int) -> str:
    """Mount an empty disk of memory on a folder; return why it is refused, '' if it is not. Only root may."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.strip() or f"mount ended with {done.returncode}" if done.returncode else ""


def unmount(folder: Path) -> None:
    """Take the disk away; who has a file of it open keeps that."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(folder: Path, seconds_to_fill: float = 60.0) -> Iterator[None]:
    """Keep a disk full: what becomes free, as when a stage's unfinished state goes, is taken at once, until the end."""
    filler, over = folder / "filler", threading.Event()

    def fill(handle: BinaryIO) -> None:
        block = 1 << 20  # great at first, then as small as the disk counts
        while not over.is_set():
            try:
                handle.write(bytes(block))
            except OSError as error:
                assert error.errno == errno.ENOSPC
                if block == BLOCK_BYTES:
                    over.wait(0.002)
                block = BLOCK_BYTES

    with filler.open("wb", buffering=0) as handle:
        thread = threading.Thread(target=fill, args=(handle,))
        thread.start()
        deadline = time.monotonic() + seconds_to_fill
        try:
            while shutil.disk_usage(folder).free >= BLOCK_BYTES:
                assert time.monotonic() < deadline, f"{folder} is not full after {seconds_to_fill:.0f} s"
                time.sleep(0.002)
            yield
        finally:
            over.set()
            thread.join()
    filler.unlink()

"""What a worker leaves for its driver: whole, and also where no byte is free any more."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from genai_core.errors import DiskFullError
from genai_core.launch.outcome import OUTCOME, leave_outcome, make_room_for_outcome, raise_outcome

FULL = {"status": "error", "kind": "DiskFullError", "message": "No space left: free some and run again."}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk is mounted as root, which is not allowed here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as handle, pytest.raises(OSError, match="No space left"):
        while True:
            handle.write(bytes(4096))


def test_a_full_disk_can_be_told_of_on_that_disk(small_disk: Path) -> None:
    make_room_for_outcome(small_disk)
    fill(small_disk)
    leave_outcome(small_disk, FULL)
    with pytest.raises(DiskFullError, match="free some and run again"):
        raise_outcome(small_disk)
    (small_disk / OUTCOME).unlink()
    (small_disk / "filler").rename(small_disk / "more")
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        make_room_for_outcome(small_disk)  # the next training finds out before it begins


def test_an_outcome_replaces_the_one_before(tmp_path: Path) -> None:
    make_room_for_outcome(tmp_path)
    leave_outcome(tmp_path, FULL)
    make_room_for_outcome(tmp_path)
    assert not (tmp_path / OUTCOME).exists()
    leave_outcome(tmp_path, {"status": "done"})
    raise_outcome(tmp_path)
    leave_outcome(tmp_path, FULL)  # also where no room was made
    with pytest.raises(DiskFullError):
        raise_outcome(tmp_path)

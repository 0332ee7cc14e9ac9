"""Telling a full disk from other failures, whoever noticed it and however deep it lies."""

from __future__ import annotations

import errno
import io
import shutil
import sqlite3
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from genai_core.cli.run import Run
from genai_core.config.recipe import Recipe
from genai_core.config.settings import Settings
from genai_core.errors import DiskFullError, StageFailedError, is_disk_full
from genai_core.stages.host import log_trace


def wrapped(error: BaseException, *, explicitly: bool) -> BaseException:
    """Return an error that was raised while, or because, another was handled."""
    try:
        try:
            raise error
        except BaseException as found:
            if explicitly:
                raise StageFailedError("the stage failed") from found
            raise StageFailedError("the stage failed")  # noqa: B904 (the context is what is tested)
    except StageFailedError as outer:
        return outer


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    DiskFullError("No space left in the store"),
    sqlite3.OperationalError("database or disk is full"),
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),  # safetensors, in Rust
]
OTHER = [OSError(errno.EACCES, "Permission denied"), RuntimeError("the stage is full of errors")]


@pytest.mark.parametrize("error", FULL)
def test_a_full_disk_is_seen_in_what_an_error_came_from(error: Exception) -> None:
    assert is_disk_full(error)
    assert is_disk_full(wrapped(error, explicitly=True))
    assert is_disk_full(wrapped(error, explicitly=False))


@pytest.mark.parametrize("error", OTHER)
def test_another_failure_is_not_taken_for_one(error: Exception) -> None:
    assert not is_disk_full(error)
    assert not is_disk_full(wrapped(error, explicitly=True))


def test_what_ends_a_run_on_a_full_disk_is_put_down_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's server answers 500 when its database cannot grow: nothing in the error speaks of the disk."""
    settings = Settings(home=tmp_path)
    run = Run(Recipe(name="x"), settings, [], Console(), threading.Event(), 0.0)
    error = RuntimeError("500 Internal Server Error\nmore")
    run._blame_full_disk(error)  # there is space: it is not the disk
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=300_000))
    with pytest.raises(
        DiskFullError, match=r"0\.3 MB are free \(500 Internal Server Error\)\. Free some and run again"
    ):
        run._blame_full_disk(error)


def test_a_log_that_cannot_be_written_does_not_end_the_job_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, write_through=True))
        with pytest.raises(OSError, match="No space left"):
            print("this is what is not there", file=sys.stderr)
        try:
            raise DiskFullError("No space left in the store")
        except DiskFullError:
            log_trace()
        monkeypatch.undo()

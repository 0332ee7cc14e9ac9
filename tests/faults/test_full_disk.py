"""A disk that fills up under a whole run, its servers' databases included: said, and resumed when there is space again."""

from __future__ import annotations

import errno
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from fault_runs import CHECKPOINT_EVERY, Home, RunningFlow, checkpoint_steps, wait_for

pytestmark = pytest.mark.faults

DISK = "64m"
"""Five times what a whole run of the recipe needs."""


@pytest.fixture
def small(blank: Home, tmp_path: Path) -> Iterator[Home]:
    """A home with nothing in it on a small disk of its own, which starts its own Prefect server."""
    disk, recipe = tmp_path / "home", tmp_path / "faults.yaml"
    disk.mkdir()
    recipe.write_text(blank.recipe.read_text().replace("generations: 1", "generations: 0"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk is mounted as root, which is not allowed here: {mounted.stderr.strip()}")
    try:
        yield Home(disk, recipe)
    finally:
        subprocess.run(
            ["umount", "--lazy", str(disk)], check=True
        )  # lazy: this process may have read MLflow's database


@contextmanager
def filled(home: Home) -> Iterator[None]:
    """Keep the disk full: what becomes free, as when a stage's unfinished state goes, is taken at once, until the end."""
    filler, over = home.path / "filler", threading.Event()

    def fill(handle: BinaryIO) -> None:
        while not over.is_set():
            try:
                handle.write(bytes(1 << 12))
            except OSError as error:
                assert error.errno == errno.ENOSPC
                over.wait(0.002)

    with filler.open("wb", buffering=0) as handle:
        thread = threading.Thread(target=fill, args=(handle,))
        thread.start()
        wait_for("a full disk", lambda: shutil.disk_usage(home.path).free < 1 << 12, every=0.002)
        try:
            yield
        finally:
            over.set()
            thread.join()
    filler.unlink()


def in_training(running: RunningFlow) -> None:
    """Wait for a step of pre-training with a checkpoint behind it."""
    running.await_step(CHECKPOINT_EVERY + 2)


def between_stages(running: RunningFlow) -> None:
    """Wait for the moment when fine-tuning has been published and what follows has not begun."""
    wait_for("the manifest", lambda: "finetune" in running.home.manifests(), every=0.005)


@pytest.mark.parametrize("moment", [in_training, between_stages])
def test_full_disk(small: Home, unbroken: Home, moment: Callable[[RunningFlow], None]) -> None:
    """The run ends with 1 and says what to do; what was published is whole, and the next run goes on from there."""
    with small.start() as running:
        moment(running)
        with filled(small):
            running.end(1)
        running.await_nothing_left(60.0)
    said = " ".join(running.output.split())
    print("  said: " + said[said.find("failed: ") :])
    assert "failed: No space left" in said
    assert "Free some and run again" in said
    assert "Traceback" not in said
    assert running.report()["status"] == "failed"
    kept, steps = small.published(), checkpoint_steps(small)
    assert kept
    assert small.call("storage", "verify").returncode == 0

    with small.start() as running:
        running.end(0, 3)  # so small a model may be refused by the gate
        running.await_nothing_left(60.0)
    statuses = running.statuses()
    print(f"  then: {statuses}")
    assert [name for name, status in statuses.items() if status == "reused"] == sorted(kept, key=list(statuses).index)
    assert "promote" in statuses
    if moment is in_training:
        assert f"resumed at step {steps[-1]}" in running.output
    published = small.published()
    assert {title: published[title] for title in kept} == kept
    assert published["pretrain"] == unbroken.published()["pretrain"]
    assert [run.info.status for run in small.stage_runs("pretrain")] == ["FINISHED"]

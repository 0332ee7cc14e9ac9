"""A disk that fills up under a whole run, its servers' databases included: said, and resumed when there is space again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_runs import CHECKPOINT_EVERY, Home, RunningFlow, checkpoint_steps, wait_for

from tests.small_disk import filled, mount, unmount

pytestmark = pytest.mark.faults

DISK_MEGABYTES = 64
"""Five times what a whole run of the recipe needs."""


@pytest.fixture
def small(blank: Home, tmp_path: Path) -> Iterator[Home]:
    """A home with nothing in it on a small disk of its own, which starts its own Prefect server."""
    disk, recipe = tmp_path / "home", tmp_path / "faults.yaml"
    disk.mkdir()
    recipe.write_text(blank.recipe.read_text().replace("generations: 1", "generations: 0"))
    if refused := mount(disk, DISK_MEGABYTES):
        pytest.skip(f"a small disk is mounted as root, which is not allowed here: {refused}")
    try:
        yield Home(disk, recipe)
    finally:
        unmount(disk)


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
        with filled(small.path):
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

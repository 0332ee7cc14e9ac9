"""Checkpoints that a crash or a disk has damaged: noticed, named on the screen, and the one before is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fault_runs import CHECKPOINT_EVERY, Home, checkpoint_steps, checkpoints_refused
from test_killed_training import check_same

pytestmark = pytest.mark.faults


def flip_a_byte(checkpoint: Path) -> str:
    """Change one byte in the middle of the weights; return what must be said of it."""
    path = checkpoint / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x01
    path.write_bytes(data)
    return "model.safetensors has changed"


def remove_a_file(checkpoint: Path) -> str:
    """Remove the optimizer's moments; return what must be said of it."""
    (checkpoint / "optimizer.safetensors").unlink()
    return "optimizer.safetensors is missing"


def truncate(checkpoint: Path) -> str:
    """Cut the weights; return what must be said of it."""
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    return "model.safetensors is truncated"


@pytest.fixture(scope="session")
def killed(prepared: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose flow was killed with two checkpoints in it."""
    home = prepared.copy(tmp_path_factory.mktemp("killed") / "home")
    with home.start("pretraining") as running:
        running.await_step(2 * CHECKPOINT_EVERY + 2)
        running.process.kill()
        running.await_nothing_left(10.0)
    assert len(home.checkpoints()) == 2
    return home


@pytest.mark.parametrize("damage", [flip_a_byte, remove_a_file, truncate])
def test_damaged_checkpoint(killed: Home, unbroken: Home, tmp_path: Path, damage: Callable[[Path], str]) -> None:
    """The newest checkpoint is refused by name; the run goes on from the one before and ends with the same bytes."""
    home = killed.copy(tmp_path / "home")
    before, newest = checkpoint_steps(home)
    wanted = f"{home.checkpoints()[-1].name}/{damage(home.checkpoints()[-1])}"
    running = home.run("pretraining")
    [said] = checkpoints_refused(running.output)
    print(f"  said: {said[:120]}; resumed at {before}, not {newest}")
    assert said.startswith(wanted)
    assert f"resumed at step {before}" in running.output
    check_same(home, unbroken)

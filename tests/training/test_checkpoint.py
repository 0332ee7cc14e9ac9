"""A checkpoint is whole, or it is named and the one before it is used."""

import errno
import json

import pytest
import torch
from small_run import MemoryLog, largest_difference, run_small, small_config, small_model, weights

from genai_core.errors import DiskFullError
from genai_core.training import checkpoint as checkpoint_module
from genai_core.training.checkpoint import CheckpointFolder
from genai_core.training.worker import LocalKeeper


def tensors(value):
    return {"model": {"w": torch.full((64,), float(value))}, "optimizer": {}, "rng": {"torch": torch.get_rng_state()}}


def open_folder(path, every=5):
    log = MemoryLog()
    return CheckpointFolder(LocalKeeper(path), log, every), log


def steps_in(path):
    return sorted(folder.name for folder in (path / "checkpoints").iterdir())


def flip_byte(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def truncate(file):
    file.write_bytes(file.read_bytes()[:-7])


def remove(file):
    file.unlink()


def test_what_comes_back_is_what_went_in(tmp_path):
    folder, _ = open_folder(tmp_path)
    folder.save(5, tensors(1.5), {"counters": {"step": 5}})
    found = open_folder(tmp_path)[0].newest()
    assert found.step == 5
    assert found.state["counters"] == {"step": 5}
    assert torch.equal(found.tensors["model"]["w"], torch.full((64,), 1.5))


@pytest.mark.parametrize("damage", [flip_byte, truncate, remove])
@pytest.mark.parametrize(
    "file", ["model.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json", "manifest.json"]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(tmp_path, damage, file):
    folder, log = open_folder(tmp_path)
    for step in (5, 10):
        folder.save(step, tensors(step), {})
    damage(tmp_path / "checkpoints" / "step-00000010" / file)
    found = folder.newest()
    assert found.step == 5
    (message,) = log.said("checkpoint refused")
    assert f"step-00000010/{file}" in message or file == "manifest.json"
    kind = {flip_byte: "", truncate: "", remove: "is missing"}[damage]
    assert kind in message
    if file != "manifest.json":
        assert {flip_byte: "has changed", truncate: "is truncated", remove: "is missing"}[damage] in message
    assert steps_in(tmp_path) == ["step-00000005"]


def test_when_all_are_damaged_there_is_none(tmp_path):
    folder, log = open_folder(tmp_path)
    for step in (5, 10):
        folder.save(step, tensors(step), {})
        flip_byte(tmp_path / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
    assert folder.newest() is None
    assert len(log.said("checkpoint refused")) == 2


def test_an_unfinished_one_does_not_exist(tmp_path):
    folder, log = open_folder(tmp_path)
    folder.save(5, tensors(5), {})
    (tmp_path / "checkpoints" / "step-00000005").rename(tmp_path / "checkpoints" / ".step-00000005.part")
    assert folder.newest() is None
    assert not log.events


def test_the_last_two_are_kept_and_the_roll_back_points_too(tmp_path):
    folder, _ = open_folder(tmp_path)
    for step in (0, 5, 10, 12, 13):
        folder.save(step, tensors(step), {})
    assert steps_in(tmp_path) == [f"step-{step:08d}" for step in (5, 10, 12, 13)]
    assert folder.newest().step == 13
    assert folder.newest(for_rollback=True).step == 10


def test_a_full_disk_is_told_and_leaves_what_there_was(tmp_path, monkeypatch):
    folder, _ = open_folder(tmp_path)
    folder.save(5, tensors(5), {})

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "save_file", no_space)
    with pytest.raises(DiskFullError, match="Free some and run again to resume"):
        folder.save(10, tensors(10), {})
    assert steps_in(tmp_path) == ["step-00000005"]
    assert folder.newest().step == 5


def test_a_run_with_a_damaged_newest_checkpoint_ends_as_an_unbroken_one(tmp_path):
    unbroken = small_model()
    run_small(tmp_path / "a", unbroken, small_config())
    config = small_config()

    class PowerCutError(Exception):
        pass

    log = MemoryLog()

    def cut(step):
        if step == 13:
            raise PowerCutError

    log.on_metrics = cut
    with pytest.raises(PowerCutError):
        run_small(tmp_path / "b", small_model(), config, log=log)
    flip_byte(tmp_path / "b" / "checkpoints" / "step-00000010" / "optimizer.safetensors")
    log, resumed = MemoryLog(), small_model(seed=7)
    run_small(tmp_path / "b", resumed, config, log=log)
    assert log.said("checkpoint refused: step-00000010/optimizer.safetensors has changed")
    assert log.said("resumed at step 5")
    assert largest_difference(weights(unbroken), weights(resumed)) == 0.0


def test_the_state_is_json_without_times(tmp_path):
    run_small(tmp_path, small_model(), small_config(steps=5))
    state = json.loads((tmp_path / "checkpoints" / "step-00000005" / "state.json").read_text())
    assert sorted(state) == ["counters", "grad_norms", "step"]
    assert sorted(state["counters"]) == [
        "recent_losses", "rollbacks", "skipped", "skipped_in_a_row", "step", "tokens_seen",
    ]  # fmt: skip

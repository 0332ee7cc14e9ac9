"""One, two and four gloo processes: what must not depend on their number."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import worlds
from safetensors.torch import load_file
from small_run import small_model

SCRIPT = Path(__file__).with_name("worlds.py")


def run_world(size, folder):
    """Return what each rank of a world has found."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONWARNINGS": "ignore"}
    started = [
        subprocess.Popen([sys.executable, str(SCRIPT), str(rank), str(size), str(folder)], env=environment)
        for rank in range(size)
    ]
    try:
        assert [process.wait(timeout=300) for process in started] == [0] * size
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
    return [load_file(folder / f"rank{rank}.safetensors") for rank in range(size)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    worlds.main(0, 1, folder)
    return load_file(folder / "rank0.safetensors")


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.faults)], ids=["two", "four"])
def many(request, tmp_path_factory):
    return run_world(request.param, tmp_path_factory.mktemp("many"))


def test_workers_of_local_sgd_on_any_number_of_processes_give_the_same_bits(one, many):
    names = [name for name in one if name.startswith("local/model.")]
    assert len(names) > 15
    for found in many:
        assert all(torch.equal(one[name], found[name]) for name in names)
    for name in ("local/losses", "local/norms"):
        assert len(one[name]) == 20
        assert torch.equal(one[name], many[0][name])


def test_bytes_are_those_of_the_exchanges_alone(one, many):
    """Every rank hands over (m + 1) (W - 1) / W of the weights per round and row; without local SGD a ring's 2 (W - 1) / W."""
    size, rounds = len(many), 2  # after the resume
    numbers = [parameter.numel() for parameter in small_model().parameters()]
    own = worlds.DILOCO.workers // size
    exchanged = sum((own + 1) * (size - 1) * -(-count // size) for count in numbers) * 4
    for found in many:
        sent = int(found["local/sent"])
        assert 0 <= sent - rounds * exchanged < 3000  # beside the weights: figures of the steps, at the round's end
        assert int(found["sync/sent"]) >= 10 * 2 * (size - 1) * sum(numbers) * 4 // size
    assert many[0]["local/told"].tolist() == pytest.approx([exchanged] * 4, rel=0.01)
    assert int(one["local/sent"]) == int(one["sync/sent"]) == 0

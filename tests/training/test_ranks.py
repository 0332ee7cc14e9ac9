"""One process and two gloo processes: the same weights, losses, skips and held-out figures."""

from pathlib import Path

import pytest
import torch
import two_ranks
from gloo_ranks import ranks_beside
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what rank 0 of one, and both ranks of two, have found."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    with ranks_beside(SCRIPT, 2, two, timeout=240):
        two_ranks.main(0, 1, one)
    return (
        load_file(one / "rank0.safetensors"),
        load_file(two / "rank0.safetensors"),
        load_file(two / "rank1.safetensors"),
    )


@pytest.mark.parametrize("run", ["causal", "joint", "hybrid", "diffusion", "block", "distillation", "spikes"])
def test_weights_after_the_run_are_the_same(found, run):
    one, two, _ = found
    names = [name for name in one if name.startswith(f"{run}/model.")]
    assert len(names) > 15
    assert max(float((one[name] - two[name]).abs().max()) for name in names) < 1e-9


def test_both_ranks_hold_the_same_bits(found):
    _, first, second = found
    assert all(torch.equal(first[name], second[name]) for name in second)


@pytest.mark.parametrize("run", ["causal", "joint", "hybrid", "diffusion", "block", "distillation"])
def test_losses_and_held_out_losses_are_the_same(found, run):
    one, two, _ = found
    assert len(one[f"{run}/losses"]) == 20
    torch.testing.assert_close(one[f"{run}/losses"], two[f"{run}/losses"], rtol=0, atol=1e-9)
    torch.testing.assert_close(one[f"{run}/held_out"], two[f"{run}/held_out"], rtol=0, atol=1e-9)


def test_float32_gradients_and_losses_agree(found):
    one, two, _ = found
    for name in one:
        if name.startswith("gradient/"):
            assert float((one[name] - two[name]).norm() / one[name].norm()) < 1e-5, name
    assert float((one["single/losses"] - two["single/losses"]).abs().max()) < 1e-4

"""One, two and four gloo processes: what must not depend on their number."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import worlds
from gloo_ranks import run_world
from safetensors.torch import load_file, save_file
from small_run import alone, small_config, small_model, weights

from genai_core.config.training import Muon
from genai_core.errors import ConfigError
from genai_core.storage.digest import digest_file
from genai_core.training.sharding import check_sharding

SCRIPT = Path(__file__).with_name("worlds.py")


@pytest.fixture(scope="module")
def folder_of_one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    worlds.main(0, 1, folder, folder)
    return folder


@pytest.fixture(scope="module")
def one(folder_of_one):
    return load_file(folder_of_one / "rank0.safetensors")


@pytest.fixture(scope="module")
def two(folder_of_one, tmp_path_factory):
    """Return two ranks, which took up what one left behind."""
    folder = tmp_path_factory.mktemp("two")
    return run_world(SCRIPT, 2, folder, folder_of_one), folder


@pytest.fixture(scope="module", params=["two", pytest.param("four", marks=pytest.mark.faults)])
def many(request, two, tmp_path_factory):
    """Return the ranks of a world; four took up what two left behind."""
    found, folder = two
    return found if request.param == "two" else run_world(SCRIPT, 4, tmp_path_factory.mktemp("four"), folder)


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


@pytest.mark.parametrize("run", ["causal", "single", "joint", "hybrid", "lora"])
def test_cut_weights_learn_as_whole_ones(one, many, run):
    limit = 2e-5 if run == "single" else 1e-9
    names = [name for name in one if name.startswith(f"{run}/") and "model." in name]
    assert len(names) > 15
    for found in many:
        assert max(float((one[name] - found[name]).abs().max()) for name in names) < limit
        torch.testing.assert_close(one[f"{run}/held_out"], found[f"{run}/held_out"], rtol=0, atol=limit)
        assert all(torch.equal(found[name], many[0][name]) for name in names)
    for name in ("losses", "norms"):
        assert len(one[f"{run}/{name}"]) == 10
        torch.testing.assert_close(one[f"{run}/{name}"], many[0][f"{run}/{name}"], rtol=limit, atol=limit)
    # the sanity half: they have learned
    start = weights(small_model())
    moved = [one[f"{run}/{name}"] - tensor for name, tensor in start.items() if f"{run}/{name}" in one]
    assert run == "lora" or max(float(tensor.abs().max()) for tensor in moved) > 1e-2


def test_every_rank_holds_its_part_alone(one, many):
    size = len(many)
    assert float(one["causal/held"]) == 1
    assert sum(float(found["causal/held"]) for found in many) == pytest.approx(1)
    assert all(float(found["causal/held"]) < 1.2 / size for found in many)


def test_a_checkpoint_of_cut_weights_is_taken_up_by_another_number_of_ranks(one, many):
    """One to two, two to four; the run ends where the unbroken one does."""
    names = [name for name in one if name.startswith("taken up/model.")]
    for found in many:
        assert max(float((one[name] - found[name]).abs().max()) for name in names) < 1e-9
    torch.testing.assert_close(one["taken up/losses"], many[0]["taken up/losses"], rtol=0, atol=1e-9)


def test_two_to_one_and_every_rank_has_a_file_of_its_own(one, two, tmp_path):
    _, folder = two
    checkpoint = folder / "stopped" / "checkpoints" / "step-00000010"
    assert sorted(path.name for path in checkpoint.glob("*.safetensors")) == [
        "model-00000.safetensors",
        "model-00001.safetensors",
        "optimizer-00000.safetensors",
        "optimizer-00001.safetensors",
        "rng.safetensors",
    ]
    cuts = [load_file(checkpoint / f"optimizer-0000{rank}.safetensors") for rank in (0, 1)]
    name = "model.embed_tokens.weight/exp_avg"
    assert [len(cut[name]) for cut in cuts] == [31, 30]
    found = worlds.resume_sharded(alone(), tmp_path, folder)
    names = [name for name in one if name.startswith("taken up/model.")]
    assert max(float((one[name] - found[name]).abs().max()) for name in names) < 1e-9


def test_moments_matter_for_taking_up(one, two, tmp_path):
    """The sanity half: with one rank's moments zeroed the run ends elsewhere."""
    _, folder = two
    shutil.copytree(folder / "stopped", tmp_path / "other" / "stopped")
    checkpoint = tmp_path / "other" / "stopped" / "checkpoints" / "step-00000010"
    file = checkpoint / "optimizer-00001.safetensors"
    save_file(
        {name: tensor if tensor.ndim == 0 else torch.zeros_like(tensor) for name, tensor in load_file(file).items()},
        file,
    )
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"][file.name] = [file.stat().st_size, digest_file(file)]
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    found = worlds.resume_sharded(alone(), tmp_path / "here", tmp_path / "other")
    names = [name for name in one if name.startswith("taken up/model.")]
    assert max(float((one[name] - found[name]).abs().max()) for name in names) > 1e-4


@pytest.mark.parametrize("run", ["full", "adapted"])
def test_the_worker_publishes_the_whole_model_from_cut_weights(one, many, run):
    names = [name for name in one if name.startswith(f"{run}/")]
    assert len(names) > 15
    assert {name: tensor.shape for name, tensor in many[0].items() if name in names} == {
        name: one[name].shape for name in names
    }
    assert max(float((one[name] - many[0][name]).abs().max()) for name in names) < 1e-4
    learned = max(float((one[name] - one[name.replace("full", "adapted")]).abs().max()) for name in names)
    assert run == "adapted" or learned > 1e-3


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"optimizer": Muon()}, r"optimizer.kind='muon' is not computed from rows alone"),
        ({"exchange": worlds.DILOCO}, r"exchange.kind='local_sgd' lets workers learn alone"),
    ],
)
def test_what_cannot_be_computed_on_cut_weights_is_refused(config, words):
    with pytest.raises(ConfigError, match=words):
        check_sharding(small_config(**config))

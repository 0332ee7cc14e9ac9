"""Ranks that share the work on a row: one team of two, or two of them, against one process."""

import re
import types
from pathlib import Path

import pytest
import teams
import torch
from gloo_ranks import run_world
from safetensors.torch import load_file
from small_run import JOINT, alone, small_config, small_model
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from genai_core.config.compute import ComputeConfig
from genai_core.config.model import LoraAdapter
from genai_core.config.objectives import HybridLm
from genai_core.config.training import LocalSgd, Muon, ShorterRows
from genai_core.errors import ConfigError
from genai_core.models.adapters import add_adapter
from genai_core.training.context import own_labels, own_positions, see_own, share_tokens
from genai_core.training.parallel import Group
from genai_core.training.tensor import cut_matrices

SCRIPT = Path(__file__).with_name("teams.py")
TENSOR = {"llama": 1e-9, "qwen": 1e-9, "lora": 1e-9, "single": 2e-5, "half": 5e-3}
CONTEXT = {"packed": 1e-9, "muon": 1e-9, "adapter": 1e-5, "half packed": 5e-3}
DILOCO = LocalSgd(workers=4, inner_steps=5)
SHORT = (ShorterRows(end=0.5, seq_len=2),)


@pytest.fixture(scope="module")
def folder_of_one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    teams.main(0, 1, folder, folder)
    return folder


@pytest.fixture(scope="module")
def one(folder_of_one):
    return load_file(folder_of_one / "rank0.safetensors")


@pytest.fixture(scope="module")
def two(folder_of_one, tmp_path_factory):
    """Return one team, which took up what one process left behind."""
    folder = tmp_path_factory.mktemp("two")
    return run_world(SCRIPT, 2, folder, folder_of_one), folder


@pytest.fixture(scope="module", params=["two", pytest.param("four", marks=pytest.mark.faults)])
def many(request, two, tmp_path_factory):
    """Return the ranks of a world; four took up what two left behind."""
    found, folder = two
    return found if request.param == "two" else run_world(SCRIPT, 4, tmp_path_factory.mktemp("four"), folder)


def weights_of(found, run):
    return [name for name in found if name.startswith(f"{run}/") and "model." in name]


def furthest(a, b, names):
    return max(float((a[name] - b[name]).abs().max()) for name in names)


@pytest.mark.parametrize(("run", "limit"), [*TENSOR.items(), *CONTEXT.items()])
def test_teams_learn_as_one_process(one, many, run, limit):
    names = weights_of(one, run)
    assert len(names) > 15
    for found in many:
        # AdamW's first steps are as large for a gradient that is all rounding: bfloat16 shows in the figures alone
        assert run.startswith("half") or furthest(one, found, names) < limit
        torch.testing.assert_close(one[f"{run}/held_out"], found[f"{run}/held_out"], rtol=0, atol=limit)
        # those that are whole on every rank too: nothing drifts apart
        assert all(torch.equal(found[name], many[0][name]) for name in names)
    for name in ("losses", "norms"):
        assert len(one[f"{run}/{name}"]) >= 3
        torch.testing.assert_close(one[f"{run}/{name}"], many[0][f"{run}/{name}"], rtol=limit, atol=limit)
    # the sanity half: every step moved the weights, and was clipped
    assert float((one[f"{run}/losses"].diff()).abs().min()) > 1e-4
    assert float(one[f"{run}/norms"].min()) > teams.CLIP


def test_every_rank_of_a_team_holds_its_part_of_the_matrices_alone(one, many):
    """Half of the layers' matrices; embeddings, norms, and biases behind a sum are whole on both."""
    model = teams.four_heads("llama", torch.float64)
    cut = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if name.endswith("proj.weight")
        or (name.endswith("proj.bias") and not name.endswith(("o_proj.bias", "down_proj.bias")))
    )
    every = sum(parameter.numel() for parameter in model.parameters())
    assert float(one["llama/held"]) == 1
    for found in many:
        assert float(found["llama/held"]) == pytest.approx((every - cut / 2) / every, abs=1e-6)
        assert float(found["packed/held"]) == 1


def test_a_checkpoint_of_whole_tensors_is_taken_up_by_another_plan(one, many):
    """Whole to a team, a team to two; the run ends where the unbroken one does."""
    names = weights_of(one, "tensor taken up")
    for found in many:
        assert furthest(one, found, names) < 1e-9
    torch.testing.assert_close(one["tensor taken up/losses"], many[0]["tensor taken up/losses"], rtol=0, atol=1e-9)


def test_a_team_leaves_the_files_of_one_process(one, two, tmp_path):
    """Whole weights and moments under their names; one process takes them up."""
    _, folder = two
    checkpoint = folder / "tensor stopped" / "checkpoints" / "step-00000004"
    assert sorted(path.name for path in checkpoint.glob("*.safetensors")) == [
        "model.safetensors",
        "optimizer.safetensors",
        "rng.safetensors",
    ]
    shapes = {
        name: tuple(parameter.shape) for name, parameter in teams.four_heads("llama", torch.float64).named_parameters()
    }
    assert {name: tuple(tensor.shape) for name, tensor in load_file(checkpoint / "model.safetensors").items()} == shapes
    moments = load_file(checkpoint / "optimizer.safetensors")
    assert {name: tuple(moments[f"{name}/exp_avg_sq"].shape) for name in shapes} == shapes
    found = teams.resume_tensor(alone(), tmp_path, folder)
    assert furthest(one, found, weights_of(one, "tensor taken up")) < 1e-9


@pytest.mark.parametrize("run", ["full", "adapted", "shared"])
def test_the_worker_publishes_the_whole_model(one, many, run):
    names = [name for name in one if name.startswith(f"{run}/")]
    assert len(names) > 15
    assert {name: tensor.shape for name, tensor in many[0].items() if name in names} == {
        name: one[name].shape for name in names
    }
    assert furthest(one, many[0], names) < 1e-4
    learned = max(float((one[name] - one[name.replace("full", "adapted")]).abs().max()) for name in names)
    assert run != "full" or learned > 1e-3


def make_bert():
    return BertForMaskedLM(BertConfig(vocab_size=61, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))


def refused_cut(model, size, words):
    """Cut over a team that need not be there: what cannot be cut is refused before anything is sent."""
    with pytest.raises(ConfigError, match=words):
        cut_matrices(model, alone(), types.SimpleNamespace(size=lambda: size))


def test_models_that_cannot_be_cut_are_refused():
    llama = teams.four_heads("llama", torch.float32)
    refused_cut(llama, 4, "tensor_parallel=4 does not divide the model's 4 heads and 2 key-value heads. Set it to 2")
    refused_cut(small_model(), 2, "2 heads and 1 key-value heads. Set it to 1")
    refused_cut(GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=8, n_layer=1, n_head=2)), 2, "has no tp_plan")
    refused_cut(make_bert(), 2, "the base is an encoder")
    dora = add_adapter(llama, LoraAdapter(rank=2, dora=True), seed=0)
    refused_cut(dora, 2, "DoRA learns the lengths of whole matrices")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sliding_window": 8}, "has a window of 8 tokens"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "rope_type='dynamic'"),
    ],
)
def test_models_whose_rows_cannot_be_shared_are_refused(change, words):
    group = alone()
    group.team = Group(0, 2, group.device)
    model = teams.four_heads("llama", torch.float32)
    for name, value in change.items():
        setattr(model.config, name, value)
    with pytest.raises(ConfigError, match=words):
        share_tokens(model, group)
    with pytest.raises(ConfigError, match="the base is an encoder"):
        share_tokens(make_bert(), group)


@pytest.mark.parametrize(
    ("compute", "training", "words"),
    [
        ({"tensor_parallel": 2}, {"optimizer": Muon()}, r"tensor_parallel=2 cuts matrices, but optimizer.kind='muon'"),
        ({"tensor_parallel": 2}, {"exchange": DILOCO}, r"tensor_parallel=2 needs all ranks in every layer"),
        ({"context_parallel": 2}, {"exchange": DILOCO}, r"context_parallel=2 needs all ranks in every layer"),
        ({"context_parallel": 2}, {"objective": HybridLm()}, r"objective.kind='hybrid_lm' asks for more"),
        ({"context_parallel": 2}, {"objective": JOINT}, r"objective.kind='contrastive' asks for more"),
        ({"context_parallel": 3}, {}, r"parts a row into 6 chunks, but a row has 16 tokens"),
        ({"context_parallel": 2}, {"curriculum": SHORT}, r"parts a row into 4 chunks, but a row has 2 tokens"),
    ],
)
def test_trainings_that_teams_cannot_compute_are_refused(compute, training, words):
    given, config = ComputeConfig(**compute), small_config(**training)
    assert re.search(words, config.why_not_on(given))


def test_every_token_is_held_once_and_the_work_is_even():
    """Own tokens of all ranks are the row; and each rank multiplies as many queries with keys, half of all and a little."""
    teams_of_four = [Group(rank, 4, torch.device("cpu")) for rank in range(4)]
    places = [own_positions(32, team) for team in teams_of_four]
    assert sorted(torch.cat(places).tolist()) == list(range(32))
    seen = [int(see_own(torch.arange(32)[None], own).sum()) for own in places]
    assert max(seen) == min(seen) == 32 * 33 // 2 // 4


def test_own_tokens_see_their_document_up_to_themselves():
    positions = torch.tensor([[0, 1, 2, 0, 1, 0, 0, 1]])
    every = see_own(positions, torch.arange(8))[0]
    documents = [0, 0, 0, 1, 1, 2, 3, 3]
    assert every.tolist() == [[documents[k] == documents[q] and k <= q for k in range(8)] for q in range(8)]


def test_labels_stay_with_the_rank_that_predicts_them():
    group = alone()
    group.team, group.shares_tokens = Group(1, 2, group.device), True
    labels = torch.arange(1, 17).view(2, 8)
    own = own_labels({"labels": labels}, group)["labels"]
    # of 4 chunks rank 1 has the second and third: places 2 to 5 predict 3 to 6
    assert own[0].tolist() == [-100, -100, -100, 4, 5, 6, 7, -100]

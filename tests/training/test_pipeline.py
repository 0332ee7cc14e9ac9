"""A model cut into stages over two and four gloo processes: it must learn what one process learns."""

import json
from pathlib import Path

import pipeline_worlds
import pytest
import torch
from gloo_ranks import run_world
from pipeline_worlds import LAYERS, deep_model
from safetensors.torch import load_file
from small_run import EMBEDDING, JOINT, alone, small_config
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from genai_core.config.compute import ComputeConfig
from genai_core.config.objectives import Distillation, HybridLm, LinkedLm
from genai_core.config.training import LocalSgd, Muon
from genai_core.errors import ConfigError
from genai_core.models.stages import check_parts, keep_part, split_layers
from genai_core.training.pipeline import check_stages, order_passes
from genai_core.training.plan import place_workers, usual_rows

TEACHER = {"kind": "folder", "path": "t"}
SCRIPT = Path(__file__).with_name("pipeline_worlds.py")
PASSES = 4  # 7 rows a step, 2 in a pass
FIGURES = ("losses", "norms", "evaluated", "held_out", "train_loss")


@pytest.fixture(scope="module")
def folder_of_one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    pipeline_worlds.main(0, 1, folder, folder, 1)
    return folder


@pytest.fixture(scope="module")
def one(folder_of_one):
    return load_file(folder_of_one / "rank0.safetensors")


@pytest.fixture(scope="module")
def folder_of_two(folder_of_one, tmp_path_factory):
    """Return what two stages leave behind, which took up what one process left."""
    folder = tmp_path_factory.mktemp("two")
    run_world(SCRIPT, 2, folder, folder_of_one, 2, timeout=1200)
    return folder


@pytest.fixture(
    scope="module",
    params=[(2, 2), pytest.param((4, 2), marks=pytest.mark.faults), pytest.param((4, 4), marks=pytest.mark.faults)],
    ids=["two stages", "two stages, twice", "four stages"],
)
def world(request, folder_of_two, tmp_path_factory):
    """Return the ranks of a world, and its stages; four ranks took up what two left behind."""
    size, stages = request.param
    if size == 2:
        return [load_file(folder_of_two / f"rank{rank}.safetensors") for rank in range(2)], stages
    return run_world(SCRIPT, size, tmp_path_factory.mktemp("four"), folder_of_two, stages, timeout=1200), stages


def weights_of(found, run):
    """Return the weights of a run by name."""
    return {name: tensor for name, tensor in found.items() if name.startswith(f"{run}/") and name.endswith(".weight")}


@pytest.mark.parametrize("run", pipeline_worlds.RUNS)
def test_stages_learn_as_a_whole_model(one, world, run):
    ranks, stages = world
    # at bfloat16 a rounding of the norm in its last bit turns some weight's rounding, and the next steps amplify it
    limit = {"float64": 1e-9, "float32": 1e-5, "bfloat16": 1e-2}[pipeline_worlds.RUNS[run].get("precision", "float64")]
    torch.testing.assert_close(ranks[0][f"{run}/losses"][0], one[f"{run}/losses"][0], rtol=1e-6, atol=0)
    torch.testing.assert_close(ranks[0][f"{run}/norms"][0], one[f"{run}/norms"][0], rtol=1e-6, atol=0)
    whole = weights_of(one, run)
    parts = [weights_of(found, run) for found in ranks]
    # every stage has names of its own; together they have all
    assert {name for part in parts[:stages] for name in part} == set(whole)
    for part in parts:
        assert max(float((whole[name] - tensor).abs().max()) for name, tensor in part.items()) < limit
    for found in ranks:
        for name in FIGURES if found is ranks[0] else ("held_out", "train_loss"):
            assert len(one[f"{run}/{name}"]) == len(found[f"{run}/{name}"]) > 0
            torch.testing.assert_close(found[f"{run}/{name}"], one[f"{run}/{name}"], rtol=limit, atol=limit)
    for term in ("causal_lm", "mntp") if run == "hybrid" else ():
        assert len(one[f"{run}/curve {term}"]) == 6
        torch.testing.assert_close(ranks[0][f"{run}/curve {term}"], one[f"{run}/curve {term}"], rtol=limit, atol=limit)
    # the sanity half: they have learned, and every step was clipped
    start = deep_model(torch.float64, tied=pipeline_worlds.RUNS[run].get("tied", True)).state_dict()
    moved = [
        float((tensor - start[name.removeprefix(f"{run}/")]).abs().max())
        for name, tensor in whole.items()
        if name.removeprefix(f"{run}/") in start
    ]
    assert run == "lora" or max(moved) > 1e-2
    assert float(one[f"{run}/norms"].min()) > 0.5


def test_every_stage_holds_its_part_alone(world):
    ranks, stages = world
    layers = [
        {int(name.split("layers.")[1].split(".")[0]) for name in weights_of(found, "tied") if "layers." in name}
        for found in ranks
    ]
    for first in range(0, len(ranks), stages):
        assert [sorted(own) for own in layers[first : first + stages]] == [
            list(own) for own in split_layers(LAYERS, stages, head=0.3)
        ]
    whole = sum(parameter.numel() for parameter in deep_model(torch.float64, tied=False).parameters())
    held = [sum(tensor.numel() for tensor in weights_of(found, "untied").values()) for found in ranks[:stages]]
    assert sum(held) == whole
    assert max(held) < {2: 0.6, 4: 0.4}[stages] * whole


def test_tied_embeddings_are_with_the_first_and_the_last_and_stay_the_same_bits(world):
    ranks, stages = world
    name = "tied/model.embed_tokens.weight"
    assert [name in found for found in ranks[:stages]] == [True, *[False] * (stages - 2), True]
    assert torch.equal(ranks[0][name], ranks[stages - 1][name])
    assert torch.equal(ranks[0][name], ranks[-1][name])
    untied = [sorted(set(weights_of(found, "untied")) - {n for n in found if "layers." in n}) for found in ranks]
    assert untied[0] == ["untied/model.embed_tokens.weight"]
    assert untied[-1] == ["untied/lm_head.weight", "untied/model.norm.weight"]


def test_no_stage_has_more_passes_in_flight_than_there_are_stages_from_it_on(world):
    """With all forwards before the backwards it would be every pass."""
    ranks, stages = world
    passes = -(-PASSES * stages // len(ranks))
    for rank, found in enumerate(ranks):
        assert int(found["tied/in_flight"]) == min(stages - rank % stages, passes)


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("passes", [0, 1, 2, 5, 12])
def test_the_order_is_one_forward_one_backward(stages, passes):
    """Run all stages at once, a turn a stage: none waits for ever, and m passes take m + p - 1 turns each way."""
    orders = [list(order_passes(index, stages, passes)) for index in range(stages)]
    for index, order in enumerate(orders):
        ways = [way for way, _ in order]
        assert [number for way, number in order if way == "forward"] == list(range(passes))
        assert [number for way, number in order if way == "backward"] == list(range(passes))
        flying = [ways[:at].count("forward") - ways[:at].count("backward") for at in range(len(ways) + 1)]
        assert max(flying) == min(stages - index, passes)
    done, turns = set(), 0
    while any(orders):
        ready = []
        for index, order in enumerate(orders):
            if order:
                way, number = order[0]
                before = index - 1 if way == "forward" else index + 1
                if not 0 <= before < stages or (before, way, number) in done:
                    ready.append(index)
        assert ready
        for index in ready:
            done.add((index, *orders[index].pop(0)))
        turns += 1
    assert turns == (2 * (passes + stages - 1) if passes else 0)


def test_another_number_of_stages_takes_a_run_up(one, world):
    """One process to two stages, two stages to four, or to two on twice the rows; the run ends where the unbroken one does."""
    ranks, _ = world
    for found in ranks:
        taken = weights_of(found, "taken up")
        assert max(float((one[name] - tensor).abs().max()) for name, tensor in taken.items()) < 1e-9
    assert len(one["taken up/losses"]) == 10
    torch.testing.assert_close(ranks[0]["taken up/losses"], one["taken up/losses"], rtol=0, atol=1e-9)


def test_one_process_takes_up_what_two_stages_left_and_the_checkpoint_is_a_whole_model(one, folder_of_two, tmp_path):
    checkpoint = folder_of_two / "stopped" / "checkpoints" / "step-00000010"
    assert sorted(path.name for path in checkpoint.glob("*.safetensors")) == [
        "model.safetensors",
        "optimizer.safetensors",
        "rng.safetensors",
    ]
    names = {name for name, _ in deep_model(torch.float64).named_parameters()}
    assert set(load_file(checkpoint / "model.safetensors")) == names
    moments = load_file(checkpoint / "optimizer.safetensors")
    assert set(moments) == {f"{name}/{key}" for name in names for key in ("exp_avg", "exp_avg_sq", "step")}
    assert all(float(tensor.abs().max()) > 0 for tensor in moments.values())
    found = pipeline_worlds.resume(alone(), 1, tmp_path, folder_of_two)
    taken = weights_of(found, "taken up")
    assert set(taken) == set(weights_of(one, "taken up"))
    assert max(float((one[name] - tensor).abs().max()) for name, tensor in taken.items()) < 1e-9


@pytest.mark.parametrize("run", ["full", "adapted"])
def test_the_worker_publishes_the_whole_model(one, world, run):
    ranks, _ = world
    names = [name for name in one if name.startswith(f"{run}/")]
    assert len(names) == 9 * LAYERS + 2
    assert {name for name in ranks[0] if name.startswith(f"{run}/")} == set(names)
    assert max(float((one[name] - ranks[0][name]).abs().max()) for name in names) < 1e-4
    learned = max(float((one[name] - one[name.replace("full", "adapted")]).abs().max()) for name in names)
    assert run == "adapted" or learned > 1e-3


@pytest.mark.parametrize(
    ("layers", "parts", "head", "sizes"),
    [
        (5, 1, 9.0, [5]),
        (5, 2, 0.0, [3, 2]),
        (5, 2, 2.0, [3, 2]),
        (8, 4, 0.0, [2, 2, 2, 2]),
        (7, 3, 0.0, [2, 3, 2]),
        (8, 2, 10.0, [7, 1]),
        (4, 4, 3.0, [1, 1, 1, 1]),
    ],
)
def test_layers_are_split_so_that_the_slowest_stage_is_fast(layers, parts, head, sizes):
    found = split_layers(layers, parts, head)
    assert [len(own) for own in found] == sizes
    assert [layer for own in found for layer in own] == list(range(layers))


@pytest.mark.parametrize("parts", [2, 3, 5])
@pytest.mark.parametrize("tied", [True, False])
def test_parts_have_all_weights_and_tied_ones_twice(parts, tied):
    whole = {name: tensor.numel() for name, tensor in deep_model(torch.float64, tied=tied).named_parameters()}
    seen = []
    for index in range(parts):
        model = deep_model(torch.float64, tied=tied)
        part = keep_part(model, index, parts)
        own = [name for name, _ in model.named_parameters()]
        assert set(own) | part.elsewhere == set(whole) and not set(own) & part.elsewhere
        assert bool(part.tied) == (tied and index in (0, parts - 1))
        seen += own
    assert sorted(seen) == sorted([*whole, *(["model.embed_tokens.weight"] if tied else [])])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"objective": EMBEDDING}, "objective.kind='contrastive' needs more of the model"),
        ({"objective": JOINT}, "objective.kind='contrastive' needs more of the model"),
        ({"objective": Distillation(teacher=TEACHER)}, "objective.kind='distillation' needs more of the model"),
        ({"objective": LinkedLm()}, "objective.kind='linked_lm' needs more of the model"),
        ({"exchange": LocalSgd(workers=4, inner_steps=5)}, "exchange.kind='local_sgd' lets workers learn alone"),
    ],
)
def test_what_cannot_be_computed_in_a_pipeline_is_refused(config, words):
    with pytest.raises(ConfigError, match=words):
        check_stages(small_config(**config))


def test_muon_and_hybrid_are_not_refused():
    check_stages(small_config(optimizer=Muon(), objective=HybridLm()))


def test_models_that_cannot_be_cut_are_refused():
    with pytest.raises(ConfigError, match=r"pipeline_stages=6 is more than the 5 layers"):
        check_parts(deep_model(torch.float32), 6)
    tiny = {
        "vocab_size": 30,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    with pytest.raises(ConfigError, match="the base is an encoder"):
        check_parts(BertForMaskedLM(BertConfig(**tiny)), 2)
    with pytest.raises(ConfigError, match="GPT2LMHeadModel has other weights too"):
        check_parts(GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=8, n_layer=2, n_head=2)), 2)
    with pytest.raises(ValueError, match="do not form teams of 2"):
        ComputeConfig(workers=3, pipeline_stages=2)


def test_workers_and_micro_batches_that_nobody_counted_fill_a_pipeline(tmp_path):
    assert [usual_rows(16, stages) for stages in (1, 2, 3, 5)] == [8, 4, 2, 1]
    assert usual_rows(1, 4) == 1
    compute = ComputeConfig(pipeline_stages=2)
    plan = {"precision": "float32", "threads": 1, "micro_batch_rows": 4, "world_size": 4}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert place_workers(compute, 8, tmp_path)[0] == 4
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "world_size": 1}))  # it was no pipeline then
    assert place_workers(compute, 8, tmp_path)[0] == 2

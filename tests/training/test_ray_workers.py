"""One and two Ray Train workers learn the same: neither weights, nor losses, nor gradients tell how many there were."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from worker_case import arguments, read_journal, texts

from genai_core.data.packing import pack_examples
from genai_core.data.tokenizer import train_tokenizer
from genai_core.launch.cluster import disconnect_ray
from genai_core.launch.workers import RayWorkers
from genai_core.storage.folder import FolderStore
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal
from genai_core.training.worker import train_worker

SIZES = (1, 2)
BETA1 = 0.9
OBJECTIVES: dict[str, dict[str, Any]] = {
    "causal_lm": {"kind": "causal_lm"},
    "joint": {
        "kind": "mixture",
        "terms": [
            {"objective": {"kind": "causal_lm"}},
            {"objective": {"kind": "contrastive", "temperature": 0.1}, "weight": 0.5},
        ],
    },
}
RUNS: dict[str, dict[str, Any]] = {
    f"{objective}/{name}": {"objective": config, "compute": {"precision": precision, "micro_batch_rows": 2}, **more}
    for objective, config in OBJECTIVES.items()
    for name, precision, more in (
        ("float64", "float64", {}),
        ("float32", "float32", {}),
        # unclipped: the first moment that one step leaves is the gradient itself, times 1 - beta1
        ("first step", "float32", {"steps": 1, "max_grad_norm": 1e6}),
    )
}
OTHER_SEED = {**RUNS["causal_lm/float64"], "seed": 1}


def make_uneven_corpus(folder: Path) -> None:
    """Write tokenizer and rows, each with another number of trained tokens."""
    tokenizer = train_tokenizer(texts(80), 320, 64)
    tokenizer.save_pretrained(folder / "tokenizer")
    examples = []
    for index, text in enumerate(texts(80)):
        ids = tokenizer(text)["input_ids"][: 12 + index % 17]
        prompt = 1 + index * 7 % (len(ids) - 1)
        examples.append((ids, [0] * prompt + [1] * (len(ids) - prompt)))
    rows = pack_examples(examples, 32)
    rows.write(folder / "packed" / "train.arrow")
    pack_examples(examples[:6], 32).write(folder / "packed" / "heldout.arrow")


def train_each(given: dict[str, Any]) -> None:
    """Train one model after another on this rank, so that a group of workers is started once."""
    for run in given["runs"]:
        train_worker({**run, "threads": given["threads"]})


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Path]]:
    """Return the folder with the workspaces of all runs, by the number of workers; one local Ray makes them."""
    folder = tmp_path_factory.mktemp("ray")
    make_uneven_corpus(folder / "corpus")
    works = {size: folder / f"workers-{size}" for size in SIZES}
    workspace = Workspace(FolderStore(folder / "store"), "ab" * 32, folder / "scratch")
    workers = RayWorkers()
    importable = pytest.MonkeyPatch()  # a worker imports `train_each` by name
    importable.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    try:
        for size, work in works.items():
            journal = Journal(workspace.path / "journal.jsonl")
            workers.serve(workspace, journal, lambda: None, run_name=f"workers-{size}", max_failures=0)
            runs = {**RUNS, **({"other seed": OTHER_SEED} if size == 1 else {})}
            given = [run_arguments(folder / "corpus", work / name, run) for name, run in runs.items()]
            workers.train(train_each, {"runs": given}, world_size=size, threads=1)
        yield works
    finally:
        disconnect_ray()
        importable.undo()


def run_arguments(corpus: Path, work: Path, run: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of 20 steps of AdamW over 7 rows, which two workers cannot share evenly."""
    optimizer = {"kind": "adamw", "learning_rate": 3e-3, "beta1": BETA1}
    seldom = {"checkpoint_every_steps": 20, "evaluate_every_steps": 20}  # at the end alone
    return arguments(
        corpus, work, **{"steps": 20, "global_batch_tokens": 7 * 32, "optimizer": optimizer, **seldom, **run}
    )


def weights(work: Path) -> dict[str, torch.Tensor]:
    return load_file(work / "model" / "model.safetensors")


def losses(work: Path) -> list[float]:
    return [row["m"]["train/loss"] for row in read_journal(work) if "train/loss" in row.get("m", {})]


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert set(one) == set(other)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_float64_weights_are_the_same_after_twenty_steps(works: dict[int, Path], objective: str) -> None:
    one, two = (works[size] / objective / "float64" for size in SIZES)
    found = weights(one)
    assert all(tensor.dtype == torch.float64 for tensor in found.values())
    difference = largest_difference(found, weights(two))
    print(f"{objective}: weights differ by {difference:.1e}")
    assert difference < 1e-9
    assert losses(one) == pytest.approx(losses(two), rel=0, abs=1e-9)
    for size, work in zip(SIZES, (one, two), strict=True):
        assert json.loads((work / "plan.json").read_text())["world_size"] == size
        summary = json.loads((work / "summary.json").read_text())
        assert (summary["steps"], summary["skipped_steps"]) == (20, 0)


def test_another_seed_gives_other_weights(works: dict[int, Path]) -> None:
    one = works[1] / "causal_lm" / "float64"
    assert largest_difference(weights(one), weights(works[1] / "other seed")) > 1e-3
    assert losses(one) != pytest.approx(losses(works[1] / "other seed"), rel=0, abs=1e-3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_float32_losses_agree_over_twenty_steps(works: dict[int, Path], objective: str) -> None:
    one, two = (losses(works[size] / objective / "float32") for size in SIZES)
    assert len(one) == len(two) == 20
    difference = max(abs(a - b) for a, b in zip(one, two, strict=True))
    print(f"{objective}: losses differ by {difference:.1e}, the first by {abs(one[0] - two[0]) / one[0]:.1e} of itself")
    assert two[0] == pytest.approx(one[0], rel=1e-5)
    assert difference < 1e-4
    assert one[-1] < one[0] - 0.05  # there was something to agree about


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_float32_gradients_of_the_first_step_agree(works: dict[int, Path], objective: str) -> None:
    one, two = (first_gradients(works[size] / objective / "first step") for size in SIZES)
    assert set(one) == set(two)
    assert len(one) > 15
    apart = {name: float((one[name] - two[name]).norm() / one[name].norm()) for name in one}
    print(f"{objective}: gradients differ by {max(apart.values()):.1e} of themselves")
    assert max(apart.values()) < 1e-5, apart
    assert all(float(gradient.norm()) > 0 for gradient in one.values())


def first_gradients(work: Path) -> dict[str, torch.Tensor]:
    moments = load_file(work / "checkpoints" / "step-00000001" / "optimizer.safetensors")
    return {
        name.removesuffix("/exp_avg"): value / (1 - BETA1)
        for name, value in moments.items()
        if name.endswith("/exp_avg")
    }

"""Run by test_pipeline: the ranks of a gloo group (or the only one), each of which leaves what it found in FOLDER/rankN.safetensors.

python pipeline_worlds.py WORLD_SIZE FOLDER CUT_BY STAGES

CUT_BY is the folder of another world, which left a run behind that was stopped in the middle: FOLDER/stopped.
"""

import contextlib
import copy
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from gloo_ranks import fork_ranks, joined
from safetensors.torch import load_file, save_file
from small_run import SEQ_LEN, MemoryLog, run_small, small_config, small_model, small_rows
from transformers import LlamaForCausalLM
from worker_case import arguments, make_corpus

from genai_core.config.model import LoraAdapter
from genai_core.config.objectives import CausalLm, HybridLm, Objective
from genai_core.config.training import AdamW, Muon, Optimizer, ShorterRows
from genai_core.errors import InterruptedRunError
from genai_core.models.adapters import add_adapter
from genai_core.models.backbone import keep_float64
from genai_core.models.recompute import recompute_layers
from genai_core.training.evaluate import HeldOut
from genai_core.training.parallel import Group, join_group
from genai_core.training.pipeline import cut_stages, stage_of
from genai_core.training.step import Precision, states_at
from genai_core.training.worker import train_worker

LAYERS = 5
ADAMW = AdamW(learning_rate=3e-3)
SHORTER = (ShorterRows(seq_len=SEQ_LEN // 2, end=0.5),)  # passes of another shape on the way
RUNS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tied": False, "recompute": True},
    "single": {"precision": "float32"},
    "half": {"precision": "bfloat16", "tied": False, "recompute": True, "steps": 6},
    "hybrid": {"objective": HybridLm(masked_share=0.3), "recompute": True, "steps": 6},
    "lora": {"adapter": LoraAdapter(rank=4, alpha=8), "steps": 6},
    "muon": {"optimizer": Muon(learning_rate=0.02), "tied": False, "steps": 6, "curriculum": SHORTER},
}


def main(rank: int, world_size: int, folder: Path, cut_by: Path, stages: int) -> None:
    with joined(rank, world_size, folder):
        group = join_group()
        found: dict[str, torch.Tensor] = {}
        for name, run in RUNS.items():
            found.update(
                {f"{name}/{key}": tensor for key, tensor in run_one(group, stages, folder / name, **run).items()}
            )
        found.update(resume(group, stages, folder, cut_by))
        found.update(publish(group, stages, folder))
        save_file(found, folder / f"rank{rank}.safetensors")


def deep_model(dtype: torch.dtype, *, tied: bool = True, seed: int = 0) -> Any:
    """Return a Llama like the small one with more layers."""
    config = copy.deepcopy(small_model().config)
    config.num_hidden_layers, config.tie_word_embeddings = LAYERS, tied
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(dtype)
    if dtype == torch.float64:
        keep_float64(model)
    return model


def cut(model: Any, alone: Group, stages: int, config: Any, precision: Precision) -> Group:
    """Cut a model over the ranks and return a group that knows; alone, leave it whole."""
    group = Group(alone.rank, alone.world_size, alone.device)
    if group.world_size > 1:
        group.form_teams(stages)
        cut_stages(model, group, config, lambda ids, positions: states_at(model, precision, ids, positions))
    return group


def run_one(
    alone: Group,
    stages: int,
    folder: Path,
    *,
    precision: Precision = "float64",
    tied: bool = True,
    recompute: bool = False,
    objective: Objective = CausalLm(),
    optimizer: Optimizer = ADAMW,
    adapter: LoraAdapter | None = None,
    steps: int = 10,
    curriculum: tuple[ShorterRows, ...] = (),
) -> dict[str, torch.Tensor]:
    """Return this rank's weights, and losses, norms and the held-out loss, of a run with 7 rows a step, 2 in a pass."""
    # another seed on every rank but the first: all must start from rank 0's weights
    model = deep_model(torch.float64 if precision == "float64" else torch.float32, tied=tied, seed=alone.rank)
    if adapter is not None:
        model = add_adapter(model, adapter, seed=alone.rank)
    if recompute:
        recompute_layers(model)
    # clipped at every step: the norm must be that of the whole gradient
    config = small_config(
        steps=steps,
        global_batch_tokens=7 * SEQ_LEN,
        objective=objective,
        optimizer=optimizer,
        curriculum=curriculum,
        max_grad_norm=0.5,
    )
    group = cut(model, alone, stages, config, precision)
    log = MemoryLog()
    held_out = HeldOut(small_rows(examples=20, seed=9), torch.ones(61, dtype=torch.int64))
    figures = run_small(
        folder, model, config, micro_batch_rows=2, group=group, log=log, held_out=held_out, precision=precision
    )
    found = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    stage = stage_of(model)
    assert (stage is not None) == (group.world_size > 1)
    found["in_flight"] = torch.tensor(stage.most_in_flight if stage is not None else 1)
    assert figures.held_out is not None
    for name, values in (
        ("held_out", [figures.held_out.loss_nats]),
        ("train_loss", [figures.train_loss]),
        ("losses", log.curve("train/loss")),
        ("norms", log.curve("train/grad_norm")),
        ("evaluated", log.curve("eval/loss_nats")),
        *((f"curve {term}", log.curve(f"loss/{term}")) for term in ("causal_lm", "mntp")),
    ):
        found[name] = torch.tensor(values, dtype=torch.float64)
    return found


def resume(alone: Group, stages: int, folder: Path, cut_by: Path) -> dict[str, torch.Tensor]:
    """Leave a run behind that was stopped after 10 steps; end the one that another world has left behind."""
    config = small_config(global_batch_tokens=7 * SEQ_LEN)
    model = deep_model(torch.float64, seed=alone.rank)
    group = cut(model, alone, stages, config, "float64")
    stops = iter([False] * 10 + [True])
    with contextlib.suppress(InterruptedRunError):
        run_small(folder / "stopped", model, config, micro_batch_rows=2, group=group, should_stop=lambda: next(stops))
    if group.leads:
        shutil.copytree(cut_by / "stopped", folder / "taken up")
    group.any(True)  # wait
    model = deep_model(torch.float64, seed=alone.rank)
    group = cut(model, alone, stages, config, "float64")
    log = MemoryLog()
    run_small(folder / "taken up", model, config, micro_batch_rows=2, group=group, log=log)
    if group.leads:
        assert log.said("resumed at step 10"), log.events
    found = {f"taken up/{name}": parameter.detach().clone() for name, parameter in model.named_parameters()}
    found["taken up/losses"] = torch.tensor(log.curve("train/loss"), dtype=torch.float64)
    return found


def publish(group: Group, stages: int, folder: Path) -> dict[str, torch.Tensor]:
    """Return what the whole worker publishes, of a model and of an adapter."""
    if group.leads:
        make_corpus(folder / "corpus")
    group.any(True)  # wait
    found = {}
    for name, tuning in (("full", {"kind": "full"}), ("adapted", {"kind": "lora", "rank": 4, "alpha": 8})):
        compute = {
            "precision": "float32",
            "micro_batch_rows": 3,
            "pipeline_stages": stages,
            "activation_checkpointing": True,
        }
        given = arguments(folder / "corpus", folder / name, steps=6, tuning=tuning, compute=compute)
        given["base"]["n_layers"] = LAYERS
        train_worker(given)
        group.any(True)
        published = load_file(folder / name / "model" / "model.safetensors")
        found.update({f"{name}/{key}": tensor for key, tensor in published.items()})
    return found


if __name__ == "__main__":
    sys.exit(fork_ranks(main, int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))

"""Run by test_worlds: the ranks of a gloo group, or the only one, which leave what they found in FOLDER/rankN.safetensors.

python worlds.py WORLD_SIZE FOLDER CUT_BY

CUT_BY is the folder of another world, which left a run behind that was stopped in the middle: FOLDER/stopped.
"""

import contextlib
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from gloo_ranks import fork_ranks, joined
from safetensors.torch import load_file, save_file
from small_run import (
    JOINT,
    SEQ_LEN,
    MemoryLog,
    run_small,
    small_config,
    small_model,
    small_rows,
    weights,
    whole_weights,
)
from worker_case import arguments, make_corpus

from genai_core.config.model import LoraAdapter
from genai_core.config.objectives import CausalLm, HybridLm
from genai_core.config.training import AdamW, LocalSgd
from genai_core.errors import InterruptedRunError
from genai_core.models.adapters import add_adapter
from genai_core.models.recompute import recompute_layers
from genai_core.training.evaluate import HeldOut
from genai_core.training.parallel import Group, join_group
from genai_core.training.sharding import own_cut, shard_model
from genai_core.training.worker import train_worker

RECOMPUTED = {"activation_checkpointing": True}
DILOCO = LocalSgd(workers=4, inner_steps=5)


def main(rank: int, world_size: int, folder: Path, cut_by: Path) -> None:
    with joined(rank, world_size, folder):
        group = join_group()
        found = {**local_runs(group, folder), **sharded_runs(group, folder), **resume_sharded(group, folder, cut_by)}
        found.update(publish_sharded(group, folder))
        save_file(found, folder / f"rank{rank}.safetensors")


def local_runs(group: Group, folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights, losses and bytes of local SGD, float32, stopped in the middle and resumed; and bytes without it."""
    found = {}
    config = small_config(exchange=DILOCO, optimizer=AdamW(learning_rate=1e-3), max_grad_norm=0.5)
    # another seed on every rank but the first: all must start from rank 0's weights
    model, log = small_model(torch.float32, seed=group.rank), MemoryLog()
    stops = iter([False, False, True])
    try:
        run_small(
            folder / "local", model, config, group=group, log=log, micro_batch_rows=1, should_stop=lambda: next(stops)
        )
    except InterruptedRunError:
        model = small_model(torch.float32, seed=group.rank)
    else:
        raise AssertionError("was not stopped")
    before = group.sent_bytes
    run_small(folder / "local", model, config, group=group, log=log, micro_batch_rows=1)
    found["local/sent"] = torch.tensor(group.sent_bytes - before)
    found.update({f"local/{name}": tensor for name, tensor in weights(model).items()})
    if group.leads:
        assert log.said("resumed at step 10"), log.events
        found["local/losses"] = torch.tensor(log.curve("train/loss"), dtype=torch.float64)
        found["local/told"] = torch.tensor(log.curve("local_sgd/bytes_sent"))
        found["local/norms"] = torch.tensor(log.curve("train/grad_norm"), dtype=torch.float64)

    before = group.sent_bytes
    run_small(folder / "sync", small_model(torch.float32), small_config(steps=10), group=group, micro_batch_rows=1)
    found["sync/sent"] = torch.tensor(group.sent_bytes - before)
    return found


def cut_model(group: Group, dtype: torch.dtype, adapter: LoraAdapter | None = None) -> tuple[Any, Group]:
    """Return a model whose weights are cut over the ranks, and a group that knows; alone, a whole one."""
    model = small_model(dtype, seed=group.rank)  # all must start from rank 0's weights
    if adapter is not None:
        model = add_adapter(model, adapter, seed=group.rank)
    group = Group(group.rank, group.world_size, group.device)
    shard_model(model, group)
    return model, group


def sharded_runs(alone: Group, folder: Path) -> dict[str, torch.Tensor]:
    """Return whole weights, losses, norms and held-out losses of runs on cut weights: 7 rows a step, 2 in a pass."""
    found = {}
    held_out = HeldOut(small_rows(examples=20, seed=9), torch.ones(61, dtype=torch.int64))
    lora = LoraAdapter(rank=4, alpha=8)
    for name, objective, dtype, adapter, recompute in (
        ("causal", CausalLm(), torch.float64, None, False),
        ("single", CausalLm(), torch.float32, None, True),
        ("joint", JOINT, torch.float64, None, False),
        ("hybrid", HybridLm(masked_share=0.2), torch.float64, None, True),
        ("lora", CausalLm(), torch.float64, lora, False),
    ):
        model, group = cut_model(alone, dtype, adapter)
        if recompute:
            recompute_layers(model)
        log = MemoryLog()
        # clipped at every step: the norm must be that of the whole gradient
        config = small_config(steps=10, global_batch_tokens=7 * SEQ_LEN, objective=objective, max_grad_norm=0.5)
        figures = run_small(folder / name, model, config, micro_batch_rows=2, group=group, log=log, held_out=held_out)
        held = sum(own_cut(parameter).numel() for parameter in model.parameters())
        found[f"{name}/held"] = torch.tensor(held / sum(parameter.numel() for parameter in model.parameters()))
        found.update({f"{name}/{key}": tensor for key, tensor in whole_weights(model).items()})
        found[f"{name}/held_out"] = torch.tensor(figures.held_out.loss_nats, dtype=torch.float64)
        if group.leads:
            found[f"{name}/losses"] = torch.tensor(log.curve("train/loss"), dtype=torch.float64)
            found[f"{name}/norms"] = torch.tensor(log.curve("train/grad_norm"), dtype=torch.float64)
    return found


def resume_sharded(alone: Group, folder: Path, cut_by: Path) -> dict[str, torch.Tensor]:
    """Leave a run behind that was stopped after 10 steps; end the one that another world has left behind."""
    config = small_config(global_batch_tokens=7 * SEQ_LEN)
    model, group = cut_model(alone, torch.float64)
    stops = iter([False] * 10 + [True])
    with contextlib.suppress(InterruptedRunError):
        run_small(folder / "stopped", model, config, micro_batch_rows=2, group=group, should_stop=lambda: next(stops))
    if group.leads:
        shutil.copytree(cut_by / "stopped", folder / "taken up")
    group.any(True)  # wait
    model, group = cut_model(alone, torch.float64)
    log = MemoryLog()
    run_small(folder / "taken up", model, config, micro_batch_rows=2, group=group, log=log)
    found = {f"taken up/{name}": tensor for name, tensor in whole_weights(model).items()}
    if group.leads:
        assert log.said("resumed at step 10"), log.events
        found["taken up/losses"] = torch.tensor(log.curve("train/loss"), dtype=torch.float64)
    return found


def publish_sharded(group: Group, folder: Path) -> dict[str, torch.Tensor]:
    """Return what the whole worker publishes from cut weights, of a model and of an adapter."""
    if group.leads:
        make_corpus(folder / "corpus")
    group.any(True)  # wait
    found = {}
    for name, tuning in (("full", {"kind": "full"}), ("adapted", {"kind": "lora", "rank": 4, "alpha": 8})):
        compute = {"precision": "float32", "micro_batch_rows": 3, "sharding": "fully_shard"}
        train_worker(
            arguments(folder / "corpus", folder / name, steps=8, tuning=tuning, compute={**compute, **RECOMPUTED})
        )
        group.any(True)
        published = load_file(folder / name / "model" / "model.safetensors")
        found.update({f"{name}/{key}": tensor for key, tensor in published.items()})
    return found


if __name__ == "__main__":
    sys.exit(fork_ranks(main, int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))

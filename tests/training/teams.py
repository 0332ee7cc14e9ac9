"""Run by test_teams: the ranks of a gloo group, or the only one, which leave what they found in FOLDER/rankN.safetensors.

python teams.py WORLD_SIZE FOLDER CUT_BY

Two ranks are one team, four are two teams of two. CUT_BY is the folder of another world, which left runs behind that were
stopped in the middle: FOLDER/tensor stopped.
"""

import contextlib
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from gloo_ranks import fork_ranks, joined
from safetensors.torch import load_file, save_file
from small_run import SEQ_LEN, VOCAB, MemoryLog, run_small, small_config, small_rows, whole_weights
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
from worker_case import arguments, make_corpus

from genai_core.config.model import LoraAdapter
from genai_core.config.training import Muon
from genai_core.errors import InterruptedRunError
from genai_core.models.adapters import add_adapter
from genai_core.models.backbone import keep_float64
from genai_core.models.fused import choose_kernels
from genai_core.models.recompute import recompute_layers
from genai_core.training.context import share_tokens
from genai_core.training.evaluate import HeldOut
from genai_core.training.parallel import Group, join_group
from genai_core.training.sharding import own_cut
from genai_core.training.step import Precision
from genai_core.training.tensor import cut_matrices
from genai_core.training.worker import train_worker

TEAM = 2
CLIP = 0.25
LORA = LoraAdapter(rank=4, alpha=8, targets="all-linear")
ROWS = 7 * SEQ_LEN  # an odd number: two teams have unequal micro-batches
KINDS = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"attention_bias": True, "mlp_bias": True}),
    "qwen": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 8}),  # its queries and keys are normalised, head by head
}


def main(rank: int, world_size: int, folder: Path, cut_by: Path) -> None:
    with joined(rank, world_size, folder):
        alone = join_group()
        found = {**tensor_runs(alone, folder), **context_runs(alone, folder)}
        found.update({**resume_tensor(alone, folder, cut_by), **publish(alone, folder)})
        save_file(found, folder / f"rank{rank}.safetensors")


def four_heads(kind: str, dtype: torch.dtype, *, seed: int = 0) -> Any:
    """Return a two-layer model of four heads that share two key heads, and 50 channels, which four do not divide."""
    make, model_of, more = KINDS[kind]
    config = make(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=50,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.1,
        pad_token_id=None,
        bos_token_id=0,
        eos_token_id=1,
        **more,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_of(config).to(dtype)
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases would be 0, norms 1
                torch.nn.init.normal_(parameter, 1.0 if float(parameter.detach()[0]) else 0.0, 0.1)
    if dtype == torch.float64:
        keep_float64(model)
    return model


def teamed(alone: Group) -> tuple[Group, Any]:
    """Return a group in teams, and the mesh of this rank's; of one rank the group alone."""
    group = Group(alone.rank, alone.world_size, alone.device)
    return group, (group.form_teams(TEAM) if alone.world_size > 1 else None)


def cut_model(alone: Group, kind: str, dtype: torch.dtype, adapter: LoraAdapter | None = None) -> tuple[Any, Group]:
    """Return a model whose matrices are cut over a team, and a group that knows; alone, a whole one."""
    group, mesh = teamed(alone)
    model = four_heads(kind, dtype, seed=group.rank)  # all must start from rank 0's weights
    if adapter is not None:
        model = add_adapter(model, adapter, seed=group.rank)
    if mesh is not None:
        cut_matrices(model, group, mesh["team"])
    return model, group


def held_out() -> HeldOut:
    return HeldOut(small_rows(examples=20, seed=9), torch.ones(VOCAB, dtype=torch.int64))


def describe(
    name: str, model: Any, group: Group, folder: Path, steps: int, precision: Precision = "float32", **changes: Any
) -> dict[str, torch.Tensor]:
    """Return whole weights, losses, norms and the held-out loss of steps of 7 rows, 3 in a pass, each step clipped."""
    log = MemoryLog()
    config = small_config(steps=steps, global_batch_tokens=ROWS, max_grad_norm=CLIP, **changes)
    figures = run_small(
        folder / name,
        model,
        config,
        micro_batch_rows=3,
        group=group,
        log=log,
        held_out=held_out(),
        precision=precision,
    )
    held = sum(own_cut(parameter).numel() for parameter in model.parameters())
    found = {f"{name}/held": torch.tensor(held / sum(parameter.numel() for parameter in model.parameters()))}
    found.update({f"{name}/{key}": tensor for key, tensor in whole_weights(model).items()})
    found[f"{name}/held_out"] = torch.tensor(figures.held_out.loss_nats, dtype=torch.float64)
    if group.leads:
        found[f"{name}/losses"] = torch.tensor(log.curve("train/loss"), dtype=torch.float64)
        found[f"{name}/norms"] = torch.tensor(log.curve("train/grad_norm"), dtype=torch.float64)
    return found


def tensor_runs(alone: Group, folder: Path) -> dict[str, torch.Tensor]:
    """Return what runs on cut matrices come to."""
    found = {}
    for name, kind, dtype, adapter, steps, recompute, precision in (
        ("llama", "llama", torch.float64, None, 10, False, "float64"),
        ("qwen", "qwen", torch.float64, None, 5, True, "float64"),
        ("lora", "llama", torch.float64, LORA, 4, False, "float64"),
        ("single", "llama", torch.float32, None, 4, False, "float32"),
        ("half", "llama", torch.float32, None, 3, True, "bfloat16"),
    ):
        model, group = cut_model(alone, kind, dtype, adapter)
        if recompute:
            recompute_layers(model)
        choose_kernels(model, is_bfloat16=precision == "bfloat16", row_tokens=SEQ_LEN)
        found.update(describe(name, model, group, folder, steps, precision))
    return found


def context_runs(alone: Group, folder: Path) -> dict[str, torch.Tensor]:
    """Return what runs on shared tokens come to."""
    found = {}
    for name, kind, dtype, adapter, steps, recompute, precision, changes in (
        ("packed", "llama", torch.float64, None, 10, False, "float64", {}),
        ("muon", "qwen", torch.float64, None, 5, True, "float64", {"optimizer": Muon()}),
        ("adapter", "llama", torch.float32, LORA, 5, False, "float32", {}),
        ("half packed", "llama", torch.float32, None, 3, True, "bfloat16", {}),
    ):
        group, _ = teamed(alone)
        model = four_heads(kind, dtype, seed=group.rank)  # all must start from rank 0's weights
        if adapter is not None:
            model = add_adapter(model, adapter, seed=0)
            model.load_state_dict(add_adapter(four_heads(kind, dtype), adapter, seed=0).state_dict())
        if recompute:
            recompute_layers(model)
        choose_kernels(model, is_bfloat16=precision == "bfloat16", row_tokens=SEQ_LEN)
        if group.team is not None:
            share_tokens(model, group)
        found.update(describe(name, model, group, folder, steps, precision, **changes))
    return found


def resume_tensor(alone: Group, folder: Path, cut_by: Path) -> dict[str, torch.Tensor]:
    """Leave a run behind that was stopped after 4 steps; end the one that another world has left behind."""
    config = small_config(global_batch_tokens=ROWS, steps=8, checkpoint_every_steps=4)
    model, group = cut_model(alone, "llama", torch.float64)
    stops = iter([False] * 4 + [True])
    stopped = folder / "tensor stopped"
    with contextlib.suppress(InterruptedRunError):
        run_small(stopped, model, config, micro_batch_rows=4, group=group, should_stop=lambda: next(stops))
    if group.leads:
        shutil.copytree(cut_by / "tensor stopped", folder / "tensor taken up")
    group.any(True)  # wait
    model, group = cut_model(alone, "llama", torch.float64)
    log = MemoryLog()
    run_small(folder / "tensor taken up", model, config, micro_batch_rows=4, group=group, log=log)
    found = {f"tensor taken up/{name}": tensor for name, tensor in whole_weights(model).items()}
    if group.leads:
        assert log.said("resumed at step 4"), log.events
        found["tensor taken up/losses"] = torch.tensor(log.curve("train/loss"), dtype=torch.float64)
    return found


def publish(alone: Group, folder: Path) -> dict[str, torch.Tensor]:
    """Return what the whole worker publishes when matrices are cut, of a model and of an adapter, and when tokens are shared."""
    if alone.leads:
        make_corpus(folder / "corpus")
    alone.any(True)  # wait
    found = {}
    for name, key, tuning in (
        ("full", "tensor_parallel", {"kind": "full"}),
        ("adapted", "tensor_parallel", {"kind": "lora", "rank": 4, "alpha": 8}),
        ("shared", "context_parallel", {"kind": "full"}),
    ):
        compute = {"precision": "float32", "micro_batch_rows": 8}
        if alone.world_size > 1:
            compute.update({"workers": alone.world_size, key: TEAM})
        given = arguments(folder / "corpus", folder / name, steps=4, tuning=tuning, compute=compute)
        given["base"].update(n_heads=4, n_kv_heads=2)
        train_worker(given)
        alone.any(True)
        published = load_file(folder / name / "model" / "model.safetensors")
        found.update({f"{name}/{key}": tensor for key, tensor in published.items()})
    return found


if __name__ == "__main__":
    sys.exit(fork_ranks(main, int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))

"""Run by test_ranks: the ranks of a gloo group, or the only one, which write what they found.

python two_ranks.py WORLD_SIZE FOLDER
"""

import sys
from pathlib import Path

import torch
from gloo_ranks import fork_ranks, joined
from safetensors.torch import save_file
from small_run import JOINT, MemoryLog, run_small, small_config, small_model, small_rows, weights

from genai_core.config.objectives import BlockDiffusion, CausalLm, Distillation, HybridLm, MaskedDiffusion
from genai_core.config.training import SpikeConfig
from genai_core.data.collate import collate
from genai_core.objectives.registry import build_objectives
from genai_core.training.evaluate import HeldOut
from genai_core.training.parallel import join_group
from genai_core.training.step import accumulate_gradients


def main(rank: int, world_size: int, folder: Path) -> None:
    with joined(rank, world_size, folder):
        group = join_group()
        assert (group.rank, group.world_size) == (rank, world_size)
        found = {}
        held_out = HeldOut(small_rows(examples=20, seed=9), torch.ones(61, dtype=torch.int64))
        for name, objective in (
            ("causal", CausalLm()),
            ("joint", JOINT),
            ("hybrid", HybridLm()),
            ("diffusion", MaskedDiffusion()),
            ("distillation", Distillation(teacher={"kind": "folder", "path": "t"}, label_weight=0.5)),
            ("block", BlockDiffusion(block_length=4)),
        ):
            # another seed on every rank but the first: all must start from rank 0's weights
            model, log = small_model(seed=rank), MemoryLog()
            figures = run_small(
                folder / name,
                model,
                small_config(objective=objective, checkpoint_every_steps=20, evaluate_every_steps=20),
                micro_batch_rows=2,
                group=group,
                log=log,
                held_out=held_out,
                frozen={"teacher": small_model(seed=11).eval()},
            )
            found.update({f"{name}/{key}": value for key, value in weights(model).items()})
            found[f"{name}/held_out"] = torch.tensor(figures.held_out.loss_nats, dtype=torch.float64)
            if rank == 0:
                found[f"{name}/losses"] = torch.tensor(log.curve("train/loss"), dtype=torch.float64)

        model, log = small_model(torch.float32), MemoryLog()
        rows = small_rows().take(range(7))  # an odd number: the shares differ
        batches = [collate([row]) for row in group.share(rows)]
        objectives = build_objectives(JOINT)
        accumulate_gradients(model, objectives, batches, group=group, precision="float32", seeds=[0] * len(batches))
        found.update({f"gradient/{key}": value.grad.clone() for key, value in model.named_parameters()})
        run_small(folder / "single", small_model(torch.float32), small_config(), group=group, log=log)
        if rank == 0:
            found["single/losses"] = torch.tensor(log.curve("train/loss"), dtype=torch.float64)

        model, log = small_model(), MemoryLog()
        calls = {"count": 0}

        def break_step_seven(module, arguments, output):
            calls["count"] += 1
            # one pass a step: with two ranks only the last one's is broken, and both must see it
            if calls["count"] in (8, 9) and rank == world_size - 1:
                output.last_hidden_state = output.last_hidden_state * float("nan")
            return output

        model.get_decoder().register_forward_hook(break_step_seven)
        spikes = SpikeConfig(skip_budget=1, rollback_budget=1)
        run_small(folder / "spikes", model, small_config(steps=12, spikes=spikes), group=group, log=log)
        found.update({f"spikes/{key}": value for key, value in weights(model).items()})
        if rank == 0:
            assert log.said("rolled back to the weights of step 5"), log.events
            assert group.broadcast_json({"a": [1]}) == {"a": [1]}
        else:
            assert group.broadcast_json(None) == {"a": [1]}
        save_file(found, folder / f"rank{rank}.safetensors")


if __name__ == "__main__":
    sys.exit(fork_ranks(main, int(sys.argv[1]), Path(sys.argv[2])))

"""Run by test_worlds: one rank of a gloo group (or the only one) that leaves what it found in FOLDER/rankN.safetensors.

python worlds.py RANK WORLD_SIZE FOLDER
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from small_run import MemoryLog, run_small, small_config, small_model, weights

from genai_core.config.training import AdamW, LocalSgd
from genai_core.errors import InterruptedRunError
from genai_core.training.parallel import Group, join_group

DILOCO = LocalSgd(workers=4, inner_steps=5)


def main(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    found = local_runs(join_group(), folder)
    save_file(found, folder / f"rank{rank}.safetensors")
    if world_size > 1:
        dist.destroy_process_group()


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


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

"""Gloo processes for tests: a script's ranks as children of one process, which reads the libraries once for all of them."""

import contextlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "PYTHONWARNINGS": "ignore",
    "OMP_NUM_THREADS": "1",
}


@contextlib.contextmanager
def ranks_beside(script: Path, size: int, *given: Any, timeout: float = 400) -> Iterator[None]:
    """Run `script SIZE GIVEN ...`, which calls `fork_ranks`, while the block runs; all must end well within `timeout` seconds."""
    started = subprocess.Popen(
        [sys.executable, str(script), str(size), *map(str, given)],
        env={**os.environ, **ENVIRONMENT},
        start_new_session=True,
    )
    try:
        yield
        assert started.wait(timeout=timeout) == 0
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)  # its ranks too


def run_world(
    script: Path, size: int, folder: Path, *given: Any, timeout: float = 400
) -> list[dict[str, torch.Tensor]]:
    """Return what each rank of `script SIZE FOLDER GIVEN ...` has left in FOLDER/rankN.safetensors."""
    with ranks_beside(script, size, folder, *given, timeout=timeout):
        pass
    return [load_file(folder / f"rank{rank}.safetensors") for rank in range(size)]


def fork_ranks(main: Callable[..., None], size: int, *given: Any) -> int:
    """Call `main(rank, size, *given)` in a child for every rank; return the exit code, 0 if all ended well."""
    children = []
    for rank in range(size):
        child = os.fork()
        if not child:
            code = 1
            try:
                main(rank, size, *given)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    return int(any(os.waitpid(child, 0)[1] for child in children))


@contextlib.contextmanager
def joined(rank: int, size: int, folder: Path) -> Iterator[None]:
    """Be one rank of a gloo group with one thread that meets in a folder; alone, only have one thread."""
    torch.set_num_threads(1)
    if size == 1:
        yield
        return
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    yield
    dist.destroy_process_group()

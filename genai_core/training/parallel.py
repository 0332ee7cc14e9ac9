"""The only door to torch.distributed: sums, gathers and broadcasts over the ranks of one training run.

Gradients are summed, not averaged: every rank backpropagates its share of the rows with the counts of the *whole* step
below the line, so the sum over ranks is the gradient, whatever their number. (A data-parallel mean would need the
factor `world_size` in front of the loss, DESIGN 6; here the two cancel and neither is written.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

BUCKET_BYTES = 32 << 20


class Group:
    """The ranks of one run. Alone, everything here is free."""

    def __init__(self, rank: int, world_size: int, device: torch.device) -> None:
        self.rank = rank
        self.world_size = world_size
        self.device = device

    @property
    def leads(self) -> bool:
        """Return whether this rank writes what the run leaves behind."""
        return self.rank == 0

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors over the ranks, in place, in flat buckets; every rank ends with the same bits."""
        self._in_buckets(tensors, lambda flat: dist.all_reduce(flat, op=dist.ReduceOp.SUM))

    def max_(self, tensor: Tensor) -> None:
        """Keep the largest value over the ranks, elementwise, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank."""
        if self.world_size == 1:
            return flag
        asked = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return bool(asked.item())

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with rank 0's."""
        self._in_buckets(tensors, lambda flat: dist.broadcast(flat, src=0))

    def broadcast_json(self, value: Any) -> Any:
        """Return rank 0's JSON value on every rank."""
        if self.world_size == 1:
            return value
        data = json.dumps(value).encode() if self.leads else b""
        size = torch.tensor([len(data)], device=self.device)
        dist.broadcast(size, src=0)
        buffer = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.leads:
            buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(buffer, src=0)
        return json.loads(bytes(buffer.cpu().tolist()))

    def gather_rows(self, rows: Tensor) -> tuple[Tensor, int]:
        """Return the rows of all ranks in rank order, and where this rank's begin.

        Args:
            rows: (n, ...), n may differ between ranks. The result carries no gradient.
        """
        rows = rows.detach().contiguous()
        if self.world_size == 1:
            return rows, 0
        sizes = torch.zeros(self.world_size, dtype=torch.int64, device=rows.device)
        sizes[self.rank] = len(rows)
        dist.all_reduce(sizes)
        largest = int(sizes.max())
        padded = rows.new_zeros((largest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.world_size)]
        dist.all_gather(parts, padded)
        whole = torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])
        return whole, int(sizes[: self.rank].sum())

    def share(self, rows: Any) -> Any:
        """Return this rank's contiguous share of the rows; sizes differ by at most one, larger shares first."""
        base, extra = divmod(len(rows), self.world_size)
        start = self.rank * base + min(self.rank, extra)
        return rows[start : start + base + (self.rank < extra)]

    def _in_buckets(self, tensors: Iterable[Tensor], collective: Any) -> None:
        if self.world_size == 1:
            return
        for bucket in _cut_buckets(tensors):
            flat = _flatten_dense_tensors(bucket)
            collective(flat)
            for tensor, whole in zip(bucket, _unflatten_dense_tensors(flat, bucket), strict=True):
                tensor.copy_(whole)


def _cut_buckets(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    buckets: list[list[Tensor]] = []
    size = BUCKET_BYTES
    for tensor in tensors:
        full = size >= BUCKET_BYTES or buckets[-1][0].dtype != tensor.dtype
        if full:
            buckets.append([])
            size = 0
        buckets[-1].append(tensor)
        size += tensor.numel() * tensor.itemsize
    return buckets


def join_group() -> Group:
    """Return the group of this process: the one Ray Train has made, else the environment's (RANK, WORLD_SIZE), else alone."""
    cuda = torch.cuda.is_available()
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if not cuda:
        return Group(rank, world_size, torch.device("cpu"))
    # under Ray Train each worker sees only its own devices; elsewhere LOCAL_RANK says which
    local = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
    torch.cuda.set_device(local)
    return Group(rank, world_size, torch.device("cuda", local))

"""The only door to torch.distributed: sums, gathers and broadcasts over the ranks of one training run.

Ranks form a grid: rows of it work on different rows of a step, the neighbours in one (a team) share a model's layers, their
matrices, or the tokens of a row. Without a team each rank is alone in its own, and all of them form one column.

    rank = place of the team * size of a team + place in the team

Gradients are summed, not averaged: every rank backpropagates its share of the rows with the counts of the *whole* step
below the line, so the sum over ranks is the gradient, whatever their number. (A data-parallel mean would need the
factor `world_size` in front of the loss, DESIGN 6; here the two cancel and neither is written.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from genai_core.errors import ConfigError

BUCKET_BYTES = 32 << 20
Sent = dist.Work
"""A tensor on its way; to be waited for before it is written to."""


class Group:
    """Some ranks of one run, or all. Alone, everything here is free."""

    def __init__(
        self, rank: int, world_size: int, device: torch.device, ranks: dist.ProcessGroup | None = None
    ) -> None:
        """Name a group.

        Args:
            rank: of this process within it.
            world_size: how many there are.
            device: of this process.
            ranks: who they are; None = all.
        """
        self.rank = rank
        self.world_size = world_size
        self.device = device
        self._ranks = ranks
        self.shards = False
        """Whether each rank holds cuts of one model and rows of its own: its gradients come summed, and all must make the
        same passes."""

        self.cuts = False
        """Whether each rank of a team holds cuts of the same matrices (tensor parallelism)."""

        self.shares_tokens = False
        """Whether the ranks of a team share the tokens of a row (context parallelism)."""

        self.rows: Group = self
        """Those with other rows of a step, this rank among them."""

        self.sums: Group = self
        """Those whose gradients, counts and figures add up to a step's."""

        self.team: Group | None = None
        """Those with the same rows, which share the work on them; None = nobody does."""

        self.sent_bytes = 0
        """What this rank has sent so far to add up gradients, or workers' progress, over the ranks."""

    def form_teams(self, size: int) -> DeviceMesh:
        """Let every `size` neighbouring ranks work on the same rows; return the grid, its dimensions 'rows' and 'team'.

        Afterwards gradients add up over `rows`: each of a team has those of its part of the model. Every rank must ask.

        Raises:
            ConfigError: the ranks are not a multiple.
        """
        if self.world_size % size:
            raise ConfigError(
                f"compute.workers={self.world_size} do not form teams of {size} (compute.tensor_parallel, pipeline_stages or "
                f"context_parallel). Set compute.workers to a multiple of {size}."
            )
        mesh = init_device_mesh(self.device.type, (self.world_size // size, size), mesh_dim_names=("rows", "team"))
        self.rows, self.team = (
            Group(mesh.get_local_rank(name), mesh[name].size(), self.device, mesh.get_group(name))
            for name in ("rows", "team")
        )
        self.sums = self.rows
        return mesh

    def twin_of_team(self) -> Group:
        """Return the team once more, with a channel of its own: what is sent there waits for nothing that is sent here."""
        assert self.team is not None
        ranks, _ = dist.new_subgroups(self.team.world_size)
        return Group(self.team.rank, self.team.world_size, self.device, ranks)

    @property
    def holds_whole(self) -> bool:
        """Return whether this rank has the whole model, as all others do."""
        return not self.shards and (self.team is None or self.sums is self)

    @property
    def leads(self) -> bool:
        """Return whether this rank writes what the run leaves behind."""
        return self.rank == 0

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors over the ranks, in place, in flat buckets; every rank ends with the same bits."""
        self._in_buckets(tensors, self._all_reduce)

    def sum_ordered(self, rows: Tensor) -> Tensor:
        """Return the sum of the rows of all ranks, added rank by rank and row by row: the same bits however many ranks.

        Every rank adds up one slice and hands it round: a rank sends (m + 1) (W - 1) / W times n numbers, with one row
        each as many as an all-reduce in a ring.

        Args:
            rows: (m, n), equally many on every rank; on its device. The result is (n,).
        """
        if self.world_size > 1:
            size, width = self.world_size, -(-rows.shape[1] // self.world_size)
            padded = torch.nn.functional.pad(rows, (0, size * width - rows.shape[1]))
            slices = padded.view(len(rows), size, width).transpose(0, 1).contiguous()  # (W, m, n / W)
            theirs = torch.empty_like(slices)
            dist.all_to_all_single(theirs, slices, group=self._ranks)
            whole = rows.new_empty(size * width)
            dist.all_gather_into_tensor(whole, _add_rows(theirs.flatten(0, 1)), group=self._ranks)
            self.sent_bytes += (len(rows) + 1) * (size - 1) * width * rows.itemsize
            return whole[: rows.shape[1]]
        return _add_rows(rows)

    def max_(self, tensor: Tensor) -> None:
        """Keep the largest value over the ranks, elementwise, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._ranks)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank."""
        if self.world_size == 1:
            return flag
        asked = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX, group=self._ranks)
        return bool(asked.item())

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with rank 0's."""
        self._in_buckets(tensors, self._broadcast)

    def broadcast_json(self, value: Any) -> Any:
        """Return rank 0's JSON value on every rank."""
        if self.world_size == 1:
            return value
        data = json.dumps(value).encode() if self.leads else b""
        size = torch.tensor([len(data)], device=self.device)
        self._broadcast(size)
        buffer = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.leads:
            buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        self._broadcast(buffer)
        return json.loads(bytes(buffer.cpu().tolist()))

    def gather_json(self, value: Any) -> list[Any]:
        """Return the JSON values of all ranks, in their order."""
        if self.world_size == 1:
            return [value]
        line = torch.tensor(list(json.dumps(value).encode() + b"\n"), dtype=torch.uint8, device=self.device)
        whole, _ = self.gather_rows(line)
        return [json.loads(one) for one in bytes(whole.cpu().tolist()).splitlines()]

    def stream(self, parts: Mapping[str, Mapping[str, Tensor]] | None) -> Iterator[tuple[str, str, Tensor]]:
        """Give rank 0's tensors to every rank, one after another: (part, name, tensor on this rank's device).

        Args:
            parts: rank 0's; None on the others.
        """
        told = [
            [part, name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
            for part, content in sorted((parts or {}).items())
            for name, tensor in sorted(content.items())
        ]
        for part, name, shape, dtype in self.broadcast_json(told):
            if parts is not None:
                tensor = parts[part][name].to(self.device)
            else:
                tensor = torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)
            self.broadcast_([tensor])
            yield part, name, tensor

    def hand_over(self, parts: Mapping[str, Mapping[str, Tensor]]) -> Iterator[Mapping[str, Mapping[str, Tensor]]]:
        """Send tensors to rank 0, one rank after another; it gets those of each other rank on its own device.

        Args:
            parts: this rank's; rank 0's are not sent.
        """
        if self.world_size == 1:
            return
        shapes = {
            part: {name: [list(one.shape), str(one.dtype).removeprefix("torch.")] for name, one in content.items()}
            for part, content in parts.items()
        }
        headers = self.gather_json(shapes)
        if not self.leads:
            for part, content in headers[self.rank].items():
                for name in content:
                    if parts[part][name].numel():
                        dist.send(parts[part][name].to(self.device).contiguous(), group=self._ranks, group_dst=0)
            return
        for source, header in enumerate(headers[1:], start=1):
            received: dict[str, dict[str, Tensor]] = {}
            for part, content in header.items():
                received[part] = {}
                for name, (shape, dtype) in content.items():
                    tensor = torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)
                    if tensor.numel():
                        dist.recv(tensor, group=self._ranks, group_src=source)
                    received[part][name] = tensor
            yield received

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
        dist.all_reduce(sizes, group=self._ranks)
        largest = int(sizes.max())
        padded = rows.new_zeros((largest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.world_size)]
        dist.all_gather(parts, padded, group=self._ranks)
        whole = torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])
        return whole, int(sizes[: self.rank].sum())

    def send(self, tensor: Tensor, to: int) -> Sent:
        """Begin to send a tensor to one rank, which must `receive` as many; they arrive in their order."""
        sent = dist.isend(tensor.contiguous(), group=self._ranks, group_dst=to)
        assert sent is not None
        return sent

    def receive(self, tensor: Tensor, source: int) -> None:
        """Overwrite a contiguous tensor with what one rank sends."""
        dist.recv(tensor, group=self._ranks, group_src=source)

    def stack(self, own: Tensor) -> Tensor:
        """Return a tensor of every rank, (W, ...) in rank order; all have the same shape. The result carries no gradient."""
        own = own.contiguous()
        whole = own.new_empty((self.world_size, *own.shape))
        dist.all_gather_into_tensor(whole.flatten(0, 1), own, group=self._ranks)
        return whole

    def sum_own(self, stacked: Tensor) -> Tensor:
        """Return the sum over ranks of the slice of (W, ...) that is this rank's."""
        own = torch.empty_like(stacked[0], memory_format=torch.contiguous_format)
        dist.reduce_scatter_tensor(own, stacked.contiguous().flatten(0, 1), group=self._ranks)
        return own

    def share(self, rows: Any) -> Any:
        """Return this rank's contiguous share of the rows; sizes differ by at most one, larger shares first."""
        base, extra = divmod(len(rows), self.world_size)
        start = self.rank * base + min(self.rank, extra)
        return rows[start : start + base + (self.rank < extra)]

    def _all_reduce(self, flat: Tensor) -> None:
        dist.all_reduce(flat, op=dist.ReduceOp.SUM, group=self._ranks)
        self.sent_bytes += 2 * (self.world_size - 1) * flat.numel() * flat.itemsize // self.world_size  # in a ring

    def _broadcast(self, tensor: Tensor) -> None:
        dist.broadcast(tensor, group=self._ranks, group_src=0)

    def _in_buckets(self, tensors: Iterable[Tensor], collective: Any) -> None:
        if self.world_size == 1:
            return
        for bucket in _cut_buckets(tensors):
            flat = _flatten_dense_tensors(bucket)
            collective(flat)
            for tensor, whole in zip(bucket, _unflatten_dense_tensors(flat, bucket), strict=True):
                tensor.copy_(whole)


def _add_rows(rows: Tensor) -> Tensor:
    """Return the sum of rows in their order; `sum` would choose another order for another width."""
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total


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

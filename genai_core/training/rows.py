"""What the engine needs of packed rows: their number, and some of them by number; and a batch of them.

Rows may be cut for a curriculum of lengths: a row of T tokens becomes T / L rows of L tokens, whose segments begin anew, so
that nothing before a cut is seen behind it. The number of tokens stays, the products of attention become T / L times fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from genai_core.config.training import TrainingConfig
from genai_core.data.collate import collate
from genai_core.data.mixing import MixedRows, visits_of_step
from genai_core.data.order import RowNoise, noise_for_step
from genai_core.data.packing import PackedRow


class Rows(Protocol):
    """Packed rows; `data.packing.PackedRows` is one."""

    def __len__(self) -> int: ...

    def take(self, indices: Iterable[int]) -> list[PackedRow]:
        """Return the rows of these numbers, in this order."""
        ...


def take_batch(
    rows: Rows,
    indices: Sequence[int] | np.ndarray,
    noise: RowNoise,
    device: torch.device,
    length: int | None = None,
) -> dict[str, Tensor]:
    """Return rows as a batch on a device, with the noise of their visits; of several datasets with the `source` of each.

    Args:
        rows: packed rows of T tokens.
        indices: (B,) which ones.
        noise: of these B; if they are cut, of the T / length pieces of each.
        device: where the batch goes.
        length: tokens that the rows are cut to, a divisor of T; None leaves them whole.
    """
    taken = rows.take(indices)
    pieces = 1
    if length is not None:
        pieces = len(taken[0].input_ids) // length
        taken = [piece for row in taken for piece in cut_row(row, length)]
    batch = collate(taken)
    batch["noise"] = torch.from_numpy(noise.noise.copy())
    batch["place"] = torch.from_numpy(noise.place.copy())
    if isinstance(rows, MixedRows):
        batch["source"] = torch.from_numpy(np.repeat(rows.sources(indices), pieces))
    return to_device(batch, device)


@dataclass(frozen=True, slots=True, eq=False)
class StepRows:
    """The rows of one optimizer step, over all ranks."""

    rows: Rows
    indices: np.ndarray
    """(R,) which ones."""

    noise: RowNoise
    """Of their visits; of every piece where rows are cut."""

    length: int | None = None
    """Tokens that the rows are cut to."""

    def take(self, part: slice, device: torch.device) -> dict[str, Tensor]:
        """Return some of them as a batch on a device."""
        pieces = len(self.noise.noise) // len(self.indices)
        noise = self.noise[part.start * pieces : part.stop * pieces]
        return take_batch(self.rows, self.indices[part], noise, device, self.length)

    def micro_batches(
        self, share: Callable[[range], range], micro_batch_rows: int, device: torch.device
    ) -> list[dict[str, Tensor]]:
        """Return one share of the rows in micro-batches.

        Args:
            share: gives the contiguous part of the R visits that is computed here.
            micro_batch_rows: rows in one pass.
            device: where the batches go.
        """
        own = share(range(len(self.indices)))
        parts = [slice(at, min(at + micro_batch_rows, own.stop)) for at in range(own.start, own.stop, micro_batch_rows)]
        return [self.take(part, device) for part in parts]


def rows_of_step(rows: Rows, config: TrainingConfig, step: int) -> StepRows:
    """Return the rows of a step: a function of its arguments, so that a resume needs only the step."""
    indices, noise = visits_of_step(rows, config.seed, step, config.rows_per_step())
    length = config.length_at(step)
    if length is not None:
        noise = noise_for_step(config.seed, step, len(indices) * (config.seq_len // length))
    return StepRows(rows, indices, noise, length)


def name_row(rows: Rows, index: int) -> str:
    """Return what a person finds a row by: its number, of several datasets that in its own and the dataset's name."""
    if not isinstance(rows, MixedRows):
        return f"#{index}"
    name, number = rows.find(index)
    return f"#{number} of {name!r}"


def cut_row(row: PackedRow, length: int) -> list[PackedRow]:
    """Return a row of T tokens as T / length rows; a segment that a cut goes through is one on either side.

    Args:
        row: (T,) tokens.
        length: a divisor of T.
    """
    ends = np.cumsum(row.seq_lengths)
    pieces = []
    for start in range(0, len(row.input_ids), length):
        inner = ends[(ends > start) & (ends < start + length)]
        borders = np.array([start, *inner, start + length])
        own = slice(start, start + length)
        pieces.append(PackedRow(row.input_ids[own], np.diff(borders).astype(np.int32), row.loss_mask[own]))
    return pieces


def to_device(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the batch on a device."""
    return {name: tensor.to(device) for name, tensor in batch.items()} if device.type != "cpu" else dict(batch)

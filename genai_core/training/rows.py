"""What the engine needs of packed rows: their number, and some of them by number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from genai_core.data.collate import collate
from genai_core.data.order import RowNoise
from genai_core.data.packing import PackedRow


class Rows(Protocol):
    """Packed rows; `data.packing.PackedRows` is one."""

    def __len__(self) -> int: ...

    def take(self, indices: Iterable[int]) -> list[PackedRow]:
        """Return the rows of these numbers, in this order."""
        ...


def take_batch(
    rows: Rows, indices: Sequence[int] | np.ndarray, noise: RowNoise, device: torch.device
) -> dict[str, Tensor]:
    """Return rows as a batch on a device, with the noise of their visits.

    Args:
        rows: packed rows.
        indices: (B,) which ones.
        noise: of these B.
        device: where the batch goes.
    """
    batch = collate(rows.take(indices))
    batch["noise"] = torch.from_numpy(noise.noise.copy())
    batch["place"] = torch.from_numpy(noise.place.copy())
    return to_device(batch, device)


def to_device(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the batch on a device."""
    return {name: tensor.to(device) for name, tensor in batch.items()} if device.type != "cpu" else dict(batch)

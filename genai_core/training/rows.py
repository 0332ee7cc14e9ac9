"""What the engine needs of packed rows: their number, and some of them by number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from genai_core.data.packing import PackedRow


class Rows(Protocol):
    """Packed rows; `data.packing.PackedRows` is one."""

    def __len__(self) -> int: ...

    def take(self, indices: Iterable[int]) -> list[PackedRow]:
        """Return the rows of these numbers, in this order."""
        ...


def to_device(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the batch on a device."""
    return {name: tensor.to(device) for name, tensor in batch.items()} if device.type != "cpu" else dict(batch)

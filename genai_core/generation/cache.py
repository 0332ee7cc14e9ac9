"""A key-value cache of fixed slots: one row a slot, written in place, each row as long as it is.

    slot 0  k k k k k k . . . .        decode writes one token a row at that row's own length
    slot 1  k k k . . . . . . .        and reads the slots up to the longest row
    slot 2  k k k k k . . . . .

No concatenation a step and no padding kept: a finished row's slot is filled with the last row's, and a new row
starts at position 0. What lies behind a row's length is masked by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


@dataclass
class Prefill:
    """Where the keys of a left-padded batch of prompts go."""

    slots: Tensor  # (N,) slot of each new row
    prompts: Tensor  # (N,) which row of the batch it takes; several rows may share a prompt
    shift: Tensor  # (U, T) position in the batch of each position in the slot


@dataclass
class Decode:
    """Where the keys of one token a row go."""

    positions: Tensor  # (B,) of the token in its slot; rows are slots 0..B-1
    longest: int  # slots are read up to here


class SlotLayer(CacheLayerMixin):
    """One layer's slots. The cache says beforehand what the next update is."""

    is_sliding = False

    def __init__(self, n_slots: int, slot_length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._size = (n_slots, slot_length)
        self.plan: Prefill | Decode

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the slots once the head sizes are known."""
        slots, length = self._size
        self.keys = key_states.new_zeros(slots, key_states.shape[1], length, key_states.shape[3])
        self.values = value_states.new_zeros(slots, value_states.shape[1], length, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new keys and values; return what attention reads: the prompts, or the slots."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        if isinstance(self.plan, Prefill):
            self._place(self.keys, key_states, self.plan)
            self._place(self.values, value_states, self.plan)
            return key_states, value_states
        positions, longest = self.plan.positions, self.plan.longest
        rows = torch.arange(len(positions), device=positions.device)
        self.keys[rows, :, positions] = key_states[:, :, 0]
        self.values[rows, :, positions] = value_states[:, :, 0]
        return self.keys[: len(rows), :, :longest], self.values[: len(rows), :, :longest]

    @staticmethod
    def _place(slots: Tensor, states: Tensor, plan: Prefill) -> None:
        index = plan.shift[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
        slots[plan.slots, :, : states.shape[2]] = states.gather(2, index)[plan.prompts]

    def move(self, source: Tensor, target: Tensor) -> None:
        """Copy whole slots."""
        assert self.keys is not None and self.values is not None
        self.keys[target] = self.keys[source]
        self.values[target] = self.values[source]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (keys read, offset); the caller gives a mask of its own, so this serves the unpadded prefill only."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Return 0: rows differ in length, and positions are always given."""
        return 0

    def get_max_length(self) -> int:
        """Return the length of a slot in tokens."""
        return self._size[1]


class SlotCache(Cache):
    """The slots of all layers, as transformers' models want their cache."""

    def __init__(self, n_layers: int, n_slots: int, slot_length: int) -> None:
        self._slot_layers = [SlotLayer(n_slots, slot_length) for _ in range(n_layers)]
        super().__init__(layers=list(self._slot_layers))

    def expect(self, plan: Prefill | Decode) -> SlotCache:
        """Say what the next forward pass is; return the cache."""
        for layer in self._slot_layers:
            layer.plan = plan
        return self

    def move(self, source: Tensor, target: Tensor) -> None:
        """Copy the slots `source` onto the slots `target`, in every layer."""
        for layer in self._slot_layers:
            layer.move(source, target)

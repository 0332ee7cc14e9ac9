"""Packed rows -> a batch of tensors.

For a row of two segments of lengths 3 and 2, the second trained on throughout, the first only in its last token:

    input_ids      5  6  7  8  9
    segment_ids    0  0  0  1  1
    position_ids   0  1  2  0  1
    labels      -100 -100 7 -100 9

Labels are not shifted (the loss does that). The first position of a segment has none: what precedes it belongs to
another text. Without an attention mask, position_ids that restart are what keeps segments apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genai_core.data.packing import PackedRow
from genai_core.errors import DataError

IGNORE_INDEX = -100


def collate(rows: Sequence[PackedRow]) -> dict[str, Tensor]:
    """Return input_ids, labels, position_ids and segment_ids, each (B, T) int64.

    Raises:
        DataError: no rows, or rows of different lengths.
    """
    if not rows or len({len(row.input_ids) for row in rows}) != 1:
        raise DataError(f"A batch needs rows of one length; these have {sorted({len(row.input_ids) for row in rows})}.")
    input_ids = np.stack([row.input_ids for row in rows]).astype(np.int64)  # (B, T)
    lengths = np.concatenate([row.seq_lengths for row in rows]).astype(np.int64)  # (S,) of all rows, one after another
    starts = np.cumsum(lengths) - lengths  # (S,) in the flattened batch
    counts = np.array([len(row.seq_lengths) for row in rows])  # (B,)
    segments_before = np.repeat(np.cumsum(counts) - counts, counts)  # (S,)
    position_ids = np.arange(input_ids.size) - np.repeat(starts, lengths)
    segment_ids = np.repeat(np.arange(lengths.size) - segments_before, lengths)
    labels = np.where(np.stack([row.loss_mask for row in rows]) != 0, input_ids, IGNORE_INDEX)
    labels.reshape(-1)[starts] = IGNORE_INDEX
    return {
        "input_ids": torch.from_numpy(input_ids),
        "labels": torch.from_numpy(labels),
        "position_ids": torch.from_numpy(position_ids.reshape(input_ids.shape)),
        "segment_ids": torch.from_numpy(segment_ids.reshape(input_ids.shape)),
    }


def count_trained(labels: Tensor) -> int:
    """Return the number of positions that carry a loss."""
    return int((labels != IGNORE_INDEX).sum())

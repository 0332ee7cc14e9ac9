"""Rows in which short passages of the corpus stand twice, so that a model learns to copy from what it reads.

    <|endoftext|> Return the length of <|endoftext|> Return the length of      one segment: the second half can be copied

Answering from a document in the prompt needs attention heads that find an earlier occurrence and copy what followed
("induction heads", Olsson et al. 2022, arXiv 2209.11895). Text teaches them only after many more tokens than a small
corpus has; repeated passages teach them soon, and short ones soonest: with passages of 120 tokens a 5.8 M model had
learned no copying after 400 steps of 1,024 tokens, with 30 tokens it began after 250.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genai_core.data.order import permute_epoch
from genai_core.data.packing import PackedRow, PackedRows, RowWriter, pack_examples
from genai_core.errors import ConfigError

PASSAGE_TOKENS = 30
LEAST_TOKENS = 12


def write_with_repeats(text: PackedRows, share: float, seed: int, path: Path) -> int:
    """Write the rows of text and, behind them, rows of repeated passages; return how many those are.

    The order of training is drawn anew in every epoch, so their place in the file does not matter.

    Args:
        text: packed rows.
        share: of all rows written, those with repeated passages; fewer if the text has not so many segments.
        seed: which rows the passages are taken from first.
        path: of the file.

    Raises:
        ConfigError: a share of 1, which leaves no text.
    """
    if share >= 1.0:
        raise ConfigError(f"repeat_share={share:g} leaves no text to learn from. Set it below 1.")
    wanted = round(len(text) * share / (1.0 - share))
    examples: list[tuple[list[int], list[int]]] = []
    tokens = 0
    for index in permute_epoch(seed, 0, len(text)):
        if tokens >= wanted * text.seq_len:
            break
        for passage in _passages(text.take([int(index)])[0], text.seq_len):
            twice = [*passage.tolist(), *passage.tolist()]
            examples.append((twice, [0] + [1] * (len(twice) - 1)))
            tokens += len(twice)
    repeats = list(pack_examples(examples, text.seq_len))[:wanted] if examples else []
    with RowWriter(path) as writer:
        for row in text:
            writer.add(row)
        for row in repeats:
            writer.add(row)
    return len(repeats)


def _passages(row: PackedRow, seq_len: int) -> Iterator[np.ndarray]:
    """Yield the beginning of every segment that is text and long enough."""
    longest = min(PASSAGE_TOKENS + 1, seq_len // 2)
    start = 0
    for length in row.seq_lengths:
        passage = row.input_ids[start : start + min(length, longest)]
        if len(passage) >= min(LEAST_TOKENS, longest) and row.loss_mask[start : start + length].any():
            yield passage
        start += length

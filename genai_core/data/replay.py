"""Rows of the corpus's own text among rows of instructions, so that tuning does not forget what pre-training learned.

Fine-tuning on answers alone raises the loss on text; a share of pre-training rows in the same batches holds it down
(experience replay; for language models Ouyang et al. 2022, arXiv 2203.02155, section 3.5, "PPO-ptx" and its mix of
pre-training updates; Scialom et al. 2022, arXiv 2205.12393, find 1 % enough for large models).
"""

from __future__ import annotations

from pathlib import Path

from genai_core.data.order import permute_epoch
from genai_core.data.packing import PackedRows, RowWriter
from genai_core.errors import ConfigError


def count_replayed(instruct_rows: int, text_rows: int, share: float) -> int:
    """Return how many text rows make up so large a share of all rows, at most what there is.

    Raises ConfigError for a share of 1: nothing of the instructions would be left.
    """
    if share >= 1.0:
        raise ConfigError(f"replay_share={share:g} leaves no instructions to learn from. Set it below 1.")
    return min(text_rows, round(instruct_rows * share / (1.0 - share)))


def write_with_replay(instruct: PackedRows, text: PackedRows, share: float, seed: int, path: Path) -> int:
    """Write the instruction rows and a seeded choice of text rows behind them; return how many those are.

    The order of training is drawn anew in every epoch, so their place in the file does not matter.

    Raises:
        ConfigError: the rows differ in length.
    """
    count = count_replayed(len(instruct), len(text), share)
    if count and instruct.seq_len != text.seq_len:
        raise ConfigError(
            f"replay_share={share:g} mixes rows of text ({text.seq_len} tokens, data.seq_len) with rows of instructions "
            f"({instruct.seq_len} tokens): they must be equally long. Set both seq_len to the same value, or replay_share to 0."
        )
    with RowWriter(path) as writer:
        for index in range(len(instruct)):
            writer.add(instruct.take([index])[0])
        for row in text.take([int(index) for index in permute_epoch(seed, 0, len(text))[:count]]):
            writer.add(row)
    return count

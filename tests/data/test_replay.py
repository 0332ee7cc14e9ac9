"""Replay: the asked share of text rows, the same ones for the same seed, none where none is wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genai_core.data.packing import PackedRows, pack_documents
from genai_core.data.replay import count_replayed, write_with_replay
from genai_core.errors import ConfigError


def rows(first: int, count: int, seq_len: int = 16) -> PackedRows:
    tokens = list(range(first, first + count * seq_len))
    return pack_documents([tokens], seq_len, eos_id=0)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_the_share_of_text_rows_is_the_one_asked_for(tmp_path: Path, share: float) -> None:
    instruct, text = rows(1, 30), rows(10_000, 60)
    count = write_with_replay(instruct, text, share, 3, tmp_path / "mixed.arrow")
    mixed = PackedRows.open(tmp_path / "mixed.arrow")
    assert len(mixed) == len(instruct) + count
    assert abs(count / len(mixed) - share) < 0.5 / len(instruct)
    first = {int(row.input_ids.max()) for row in mixed.take(range(len(instruct)))}
    assert max(first) < 10_000, "the instructions are all there, first"
    assert all(row.input_ids.max() >= 10_000 for row in mixed.take(range(len(instruct), len(mixed))))


def test_the_choice_hangs_on_the_seed_alone(tmp_path: Path) -> None:
    def chosen(seed: int, name: str) -> list[bytes]:
        write_with_replay(rows(1, 30), rows(10_000, 60), 0.25, seed, tmp_path / name)
        mixed = PackedRows.open(tmp_path / name)
        return [np.asarray(row.input_ids).tobytes() for row in mixed.take(range(len(mixed)))]

    assert chosen(3, "a") == chosen(3, "b")
    assert chosen(3, "a") != chosen(4, "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_more_than_there_is_and_never_everything() -> None:
    assert count_replayed(100, 10, 0.5) == 10
    with pytest.raises(ConfigError, match="leaves no instructions"):
        count_replayed(100, 10, 1.0)


def test_rows_of_two_lengths_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be equally long"):
        write_with_replay(rows(1, 30), rows(1, 30, seq_len=32), 0.5, 0, tmp_path / "x.arrow")

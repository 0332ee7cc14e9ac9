"""Repeated passages: each stands twice in one segment, is the corpus's own, and takes the asked share of the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genai_core.config.recipe import Recipe
from genai_core.data.packing import PackedRows, pack_documents
from genai_core.data.repeats import LEAST_TOKENS, PASSAGE_TOKENS, write_with_repeats
from genai_core.errors import ConfigError

SEQ_LEN = 128


def text(documents: int = 120) -> PackedRows:
    generator = np.random.Generator(np.random.PCG64(1))
    lengths = generator.integers(3, 200, documents)
    return pack_documents([generator.integers(2, 5000, length).tolist() for length in lengths], SEQ_LEN, eos_id=1)


def segments(rows: PackedRows, start: int) -> list[tuple[list[int], list[int]]]:
    found = []
    for row in rows.take(range(start, len(rows))):
        ends = np.cumsum(row.seq_lengths)
        for low, high in zip(ends - row.seq_lengths, ends, strict=True):
            found.append((row.input_ids[low:high].tolist(), row.loss_mask[low:high].tolist()))
    return found


@pytest.mark.parametrize("share", [0.0, 0.2, 0.3])
def test_every_passage_is_the_corpus_s_own_and_stands_twice(tmp_path: Path, share: float) -> None:
    plain = text()
    count = write_with_repeats(plain, share, 3, tmp_path / "rows.arrow")
    mixed = PackedRows.open(tmp_path / "rows.arrow")
    assert len(mixed) == len(plain) + count
    assert abs(count / len(mixed) - share) < 1 / len(plain)
    assert [row.input_ids.tolist() for row in mixed.take(range(len(plain)))] == [
        row.input_ids.tolist() for row in plain
    ]
    known = {tuple(ids[:size]) for ids, _ in segments(plain, 0) for size in range(LEAST_TOKENS, PASSAGE_TOKENS + 2)}
    trained = [(ids, mask) for ids, mask in segments(mixed, len(plain)) if any(mask)]
    for ids, mask in trained:
        half = len(ids) // 2
        assert ids[:half] == ids[half:]
        assert tuple(ids[:half]) in known
        assert mask == [0] + [1] * (len(ids) - 1)
    assert bool(trained) == bool(share)


def test_the_choice_hangs_on_the_seed_alone(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_with_repeats(text(), 0.2, seed, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_padding_is_never_repeated(tmp_path: Path) -> None:
    short = pack_documents([list(range(2, 22))], SEQ_LEN, eos_id=1, pad_id=0)  # 22 tokens, then 106 of padding
    assert write_with_repeats(short, 0.5, 0, tmp_path / "rows.arrow") == 1
    mixed = PackedRows.open(tmp_path / "rows.arrow")
    assert [ids for ids, mask in segments(mixed, 1) if any(mask)] == [[1, *range(2, 22), 1] * 2]


def test_something_must_be_left_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leaves no text"):
        write_with_repeats(text(), 1.0, 0, tmp_path / "rows.arrow")
    with pytest.raises(ValueError, match="leaves no text"):
        Recipe(name="x", repeat_share=1.0)

"""Tuning rows: real pairs are all kept, extra ones up to a share of the trained tokens."""

from __future__ import annotations

import numpy as np
import pytest
from tokens_world import foreign_tokenizer, own_tokenizer

from genai_core.data.documents import Pair
from genai_core.data.templates import render_example
from genai_core.data.tuning_rows import build_tuning_rows
from genai_core.errors import DataError

SEQ_LEN = 96


def pairs(count, origin="real", words=3, start=0):
    return [
        Pair(f"{origin}-{i}", "call", "g", "d", f"Call value {i} of os.", f"os.value({i}" + ", key" * (i % words) + ")")
        for i in range(start, start + count)
    ]


def examples_in(rows):
    found = set()
    for row in rows:
        ends = np.cumsum(row.seq_lengths)
        found |= {tuple(row.input_ids[end - n : end]) for end, n in zip(ends, row.seq_lengths, strict=True)}
    return found


def ids_of(pair):
    return tuple(render_example(own_tokenizer(), pair.prompt, pair.completion)[0])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_the_share_of_real_tokens_holds_and_no_real_pair_is_lost(share):
    real, extra = pairs(20), pairs(60, "synthetic-g1", words=7, start=100)
    rows, stats = build_tuning_rows(real, extra, own_tokenizer(), SEQ_LEN, share, 0)
    found = examples_in(rows)
    assert all(ids_of(pair) in found for pair in real)
    tokens = stats["trained_tokens"]
    assert stats["real_share"] == tokens["real"] / (tokens["real"] + tokens["extra"]) >= share
    counts = rows.count_tokens()
    assert counts["trained"] == tokens["real"] + tokens["extra"]
    assert stats["examples"]["extra"] == sum(ids_of(pair) in found for pair in extra)
    assert stats["examples"]["extra"] + stats["dropped"]["extra"].get("over_share", 0) == 60
    if 0 < share < 1:  # and it is used up: one more pair would be too many
        longest = max(sum(render_example(own_tokenizer(), p.prompt, p.completion)[1]) for p in extra)
        assert stats["examples"]["extra"] == 60 or tokens["real"] / (sum(tokens.values()) + longest) < share
    assert stats["examples"]["extra"] == {0.0: 60, 1.0: 0}.get(share, stats["examples"]["extra"])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
def test_a_largest_share_of_real_tokens_holds_and_no_extra_pair_is_lost(share):
    """A few verified answers among many real pairs, five of which are the very same: those count as extra."""
    real, extra = pairs(300), [*pairs(5, "corrected"), *pairs(15, "corrected", words=5, start=500)]
    rows, stats = build_tuning_rows(real, extra, own_tokenizer(), SEQ_LEN, 0.0, 0, share)
    found = examples_in(rows)
    assert all(ids_of(pair) in found for pair in extra)
    tokens = stats["trained_tokens"]
    assert tokens["real"] / (tokens["real"] + tokens["extra"]) <= share
    assert stats["examples"]["extra"] == 20
    assert stats["dropped"]["real"] == {"duplicate": 5, "over_share": 295 - stats["examples"]["real"]}
    longest = max(sum(render_example(own_tokenizer(), p.prompt, p.completion)[1]) for p in real)
    assert (tokens["real"] + longest) / (sum(tokens.values()) + longest) > share or not share, "the share is used up"


def test_without_extra_pairs_a_largest_share_cuts_nothing():
    _, stats = build_tuning_rows(pairs(20), [], own_tokenizer(), SEQ_LEN, 0.0, 0, 0.5)
    assert stats["examples"] == {"real": 20, "extra": 0}


def test_a_more_tolerant_share_keeps_what_a_stricter_one_kept():
    real, extra = pairs(20), pairs(60, "synthetic-g1", start=100)
    strict, loose = (
        examples_in(build_tuning_rows(real, extra, own_tokenizer(), SEQ_LEN, share, 0)[0]) for share in (0.8, 0.5)
    )
    padding = {ids for ids in strict | loose if len(set(ids)) == 1}
    assert strict - padding < loose - padding


def test_the_choice_is_the_seeds_and_the_rows_are_the_same_twice(tmp_path):
    real, extra = pairs(20), pairs(60, "synthetic-g1", start=100)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_tuning_rows(real, extra, own_tokenizer(), SEQ_LEN, 0.7, seed)[0].write(tmp_path / name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_what_is_left_out_is_counted_by_reason():
    real = [*pairs(10), pairs(1)[0], Pair("long", "call", "g", "d", "word " * 200, "answer")]
    extra = [pairs(2)[1], *pairs(3, "synthetic-g1", start=50), pairs(1, "corrected", start=50)[0]]
    rows, stats = build_tuning_rows(real, extra, own_tokenizer(), SEQ_LEN, 0.0, 0)
    assert stats["dropped"] == {"real": {"duplicate": 1, "too_long": 1}, "extra": {"duplicate": 2}}
    assert stats["examples"] == {"real": 10, "extra": 3}
    assert stats["rows"] == len(rows) > 0 and 0.5 < stats["efficiency"] <= 1


def test_only_extra_pairs_are_fine_only_without_a_share():
    extra = pairs(5, "corrected")
    rows, stats = build_tuning_rows([], extra, own_tokenizer(), SEQ_LEN, 0.0, 0)
    assert len(rows) and stats["real_share"] == 0.0
    with pytest.raises(DataError, match=r"of 0 real and 5 extra ones.*'over_share': 5"):
        build_tuning_rows([], extra, own_tokenizer(), SEQ_LEN, 0.5, 0)


def test_nothing_left_names_the_reasons():
    with pytest.raises(DataError, match=r"'too_long': 3.*raise seq_len"):
        build_tuning_rows(pairs(3), [], own_tokenizer(), 8, 0.5, 0)


def test_padding_equal_to_the_end_token_still_trains_the_end_token():
    """The classic mistake (trl issue 976): here pad is eos, and every answer's end token carries a loss."""
    tokenizer = foreign_tokenizer()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    rows, stats = build_tuning_rows(pairs(10), [], tokenizer, SEQ_LEN, 0.0, 0)
    ends = sum(int(((row.input_ids == tokenizer.eos_token_id) & (row.loss_mask == 1)).sum()) for row in rows)
    assert ends == stats["examples"]["real"] == 10

"""Token lists -> rows of one length, each a sequence of segments that must not see each other.

Pre-training text is joined and cut every T tokens (nothing is lost); examples are never cut, but fitted into rows by
best-fit decreasing: longest first, each into the fullest row that still holds it (objectives.md 8.3).

A file of rows is Arrow IPC, memory mapped when read:

    input_ids    list<int32>  T tokens
    seq_lengths  list<int32>  tokens of each segment; they sum to T
    loss_mask    list<int8>   T times 1 (trained on) or 0

Padding is a last segment of its own with loss_mask 0, so no mask is ever derived from a token's id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from genai_core.errors import ConfigError, DataError

BATCH_ROWS = 1024
LEAST_TAIL_TOKENS = 8  # a last row with fewer tokens is not worth its padding
SCHEMA = pa.schema(
    [("input_ids", pa.list_(pa.int32())), ("seq_lengths", pa.list_(pa.int32())), ("loss_mask", pa.list_(pa.int8()))]
)


@dataclass(frozen=True, slots=True, eq=False)
class PackedRow:
    """One row of T tokens in S segments."""

    input_ids: np.ndarray  # (T,) int32
    seq_lengths: np.ndarray  # (S,) int32, sum T
    loss_mask: np.ndarray  # (T,) int8


class PackedRows:
    """Rows of one length, in memory or memory mapped; a row is found without reading the others."""

    def __init__(self, batches: Sequence[pa.RecordBatch], dropped: dict[str, int] | None = None) -> None:
        self._batches = [batch for batch in batches if batch.num_rows]
        self._ends = np.cumsum([batch.num_rows for batch in self._batches], dtype=np.int64)
        self.dropped: dict[str, int] = dict(sorted((dropped or {}).items()))
        """What the packer left out, by reason; empty when the rows were read from a file."""

    @staticmethod
    def open(path: Path) -> PackedRows:
        """Return the rows of a file, memory mapped.

        Raises:
            DataError: the file is not there, or not Arrow with these columns.
        """
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path} is not a file of packed rows: {error}") from error
        if reader.schema.names != SCHEMA.names:
            raise DataError(f"{path} has columns {reader.schema.names}, packed rows have {SCHEMA.names}.")
        return PackedRows([reader.get_batch(index) for index in range(reader.num_record_batches)])

    def write(self, path: Path) -> None:
        """Write the rows as an Arrow IPC file; the same rows give the same bytes."""
        with RowWriter(path) as writer:
            for row in self:
                writer.add(row)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> PackedRow:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        which = int(np.searchsorted(self._ends, index, side="right"))
        batch = self._batches[which]
        at = index - int(self._ends[which]) + batch.num_rows
        return PackedRow(*(_slice(batch.column(column), at) for column in range(3)))

    def __iter__(self) -> Iterator[PackedRow]:
        return (self[index] for index in range(len(self)))

    def take(self, indices: Iterable[int]) -> list[PackedRow]:
        """Return the rows of these numbers, in this order."""
        return [self[int(index)] for index in indices]

    @property
    def seq_len(self) -> int:
        """Return T, the tokens in one row; 0 when there are no rows."""
        return len(self[0].input_ids) if len(self) else 0

    def count_tokens(self) -> dict[str, int]:
        """Return the counts of a run's journal: `total`, `useful` (not padding) and `trained` (carrying a loss)."""
        total = useful = trained = 0
        for row in self:
            starts = np.cumsum(row.seq_lengths) - row.seq_lengths
            masked = np.add.reduceat(row.loss_mask, starts, dtype=np.int64)  # (S,) trained on in each segment
            total += len(row.input_ids)
            useful += int(row.seq_lengths[masked > 0].sum())
            trained += int(masked.sum() - row.loss_mask[starts].sum(dtype=np.int64))
        return {"total": total, "useful": useful, "trained": trained}

    def efficiency(self) -> float:
        """Return the share of tokens that are not padding, in [0, 1]."""
        counts = self.count_tokens()
        return counts["useful"] / counts["total"] if counts["total"] else 0.0


class RowWriter:
    """Rows into an Arrow IPC file, a batch at a time, so that a large corpus needs no memory."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pa.ipc.new_file(str(path), SCHEMA)
        self._rows: list[PackedRow] = []

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, row: PackedRow) -> None:
        """Append one row."""
        self._rows.append(row)
        if len(self._rows) == BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(_to_batch(self._rows))
            self._rows = []


def pack_documents(
    token_lists: Iterable[Sequence[int]],
    seq_len: int,
    eos_id: int,
    *,
    bos_id: int | None = None,
    pad_id: int | None = None,
    path: Path | None = None,
) -> PackedRows:
    """Return documents joined and cut every `seq_len` tokens, in the order given; each piece is its own segment.

    Every document is opened with `bos_id` and closed with `eos_id`: without an opening token a document's first token
    would never be predicted from anything, in training or in scoring. The last row is padded; with fewer than 8 tokens
    it is dropped and counted as `tail_tokens`. An empty document is counted as `empty`.

    Args:
        token_lists: the documents' ids, without special tokens.
        seq_len: T, tokens in a row.
        eos_id: closes a document.
        bos_id: opens a document; None = eos_id.
        pad_id: fills the last row; None = eos_id. It carries no loss.
        path: write the rows there as they come and return them memory mapped; None keeps them in memory.
    """
    check_seq_len(seq_len)
    dropped = {"empty": 0, "tail_tokens": 0}
    pieces = _cut_documents(
        token_lists,
        seq_len,
        bos_id=eos_id if bos_id is None else bos_id,
        eos_id=eos_id,
        pad_id=eos_id if pad_id is None else pad_id,
        dropped=dropped,
    )
    if path is None:
        return PackedRows(_to_batches(pieces), _nonzero(dropped))
    with RowWriter(path) as writer:
        for row in pieces:
            writer.add(row)
    rows = PackedRows.open(path)
    rows.dropped = _nonzero(dropped)
    return rows


def pack_examples(examples: Iterable[tuple[Sequence[int], Sequence[int]]], seq_len: int, pad_id: int = 0) -> PackedRows:
    """Return examples (ids, loss_mask) fitted into rows by best-fit decreasing; no example is cut.

    Dropped and counted: `too_long` (cutting would take the answer away), `untrained` (no position carries a loss).
    The same examples in the same order give the same rows.

    Args:
        examples: ids and loss_mask of equal length.
        seq_len: T, tokens in a row.
        pad_id: fills rows; it carries no loss.
    """
    check_seq_len(seq_len)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    dropped = {"too_long": 0, "untrained": 0}
    for ids, loss_mask in examples:
        reason = why_dropped(ids, loss_mask, seq_len)
        if reason:
            dropped[reason] += 1
        else:
            kept.append((np.asarray(ids, dtype=np.int32), np.asarray(loss_mask, dtype=np.int8)))
    bins = fit_lengths([len(ids) for ids, _ in kept], seq_len)
    rows = (_join([kept[index] for index in members], seq_len, pad_id) for members in bins)
    return PackedRows(_to_batches(rows), _nonzero(dropped))


def pack_groups(
    groups: Iterable[Sequence[tuple[Sequence[int], Sequence[int]]]], seq_len: int, pad_id: int
) -> PackedRows:
    """Return one row for each group of examples (ids, loss_mask), which together are at most `seq_len` tokens long."""
    check_seq_len(seq_len)
    arrays = (
        [(np.asarray(ids, dtype=np.int32), np.asarray(mask, dtype=np.int8)) for ids, mask in group] for group in groups
    )
    return PackedRows(_to_batches(_join(group, seq_len, pad_id) for group in arrays))


def why_dropped(ids: Sequence[int], loss_mask: Sequence[int], seq_len: int) -> str:
    """Return why `pack_examples` leaves an example out, '' if it does not."""
    if len(ids) != len(loss_mask):
        raise DataError(f"An example has {len(ids)} ids, but {len(loss_mask)} positions in its loss_mask.")
    if len(ids) > seq_len:
        return "too_long"
    return "" if any(loss_mask[1:]) else "untrained"


def fit_lengths(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return bins of indices, best-fit decreasing: longest first (ties by index), each into the fullest bin it fits.

    At most 11/9 of the fewest bins, plus one (Johnson 1973). O(n log n): the free space of open bins is one integer's
    bits, so the fullest bin that fits is its lowest set bit at or above the length.

    Args:
        lengths: each from 1 to capacity.
        capacity: of a bin.
    """
    bins: list[list[int]] = []
    open_bins: dict[int, deque[int]] = {}  # free space -> bins with exactly that, oldest first
    free = 0  # bit s is set: some bin has s free
    for index in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        length = lengths[index]
        fitting = free >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            chosen = open_bins[space].popleft()
            if not open_bins[space]:
                free &= ~(1 << space)
        else:
            space, chosen = capacity, len(bins)
            bins.append([])
        bins[chosen].append(index)
        if space > length:
            open_bins.setdefault(space - length, deque()).append(chosen)
            free |= 1 << (space - length)
    return bins


def check_seq_len(seq_len: int) -> None:
    """Raise ConfigError for a row too short to hold an opening token and something to predict."""
    if seq_len < LEAST_TAIL_TOKENS:
        raise ConfigError(f"seq_len={seq_len} is too short for a row. Set it to at least {LEAST_TAIL_TOKENS}.")


def _cut_documents(
    token_lists: Iterable[Sequence[int]],
    seq_len: int,
    *,
    bos_id: int,
    eos_id: int,
    pad_id: int,
    dropped: dict[str, int],
) -> Iterator[PackedRow]:
    row, lengths, filled = np.empty(seq_len, dtype=np.int32), [], 0
    for tokens in token_lists:
        if not len(tokens):
            dropped["empty"] += 1
            continue
        document = np.empty(len(tokens) + 2, dtype=np.int32)
        document[0], document[1:-1], document[-1] = bos_id, tokens, eos_id
        start = 0
        while start < len(document):
            piece = document[start : start + seq_len - filled]
            row[filled : filled + len(piece)] = piece
            lengths.append(len(piece))
            filled, start = filled + len(piece), start + len(piece)
            if filled == seq_len:
                yield PackedRow(row, np.array(lengths, dtype=np.int32), np.ones(seq_len, dtype=np.int8))
                row, lengths, filled = np.empty(seq_len, dtype=np.int32), [], 0
    if 0 < filled < LEAST_TAIL_TOKENS:
        dropped["tail_tokens"] = filled
    elif filled:
        row[filled:] = pad_id
        mask = (np.arange(seq_len) < filled).astype(np.int8)
        yield PackedRow(row, np.array([*lengths, seq_len - filled], dtype=np.int32), mask)


def _join(examples: Sequence[tuple[np.ndarray, np.ndarray]], seq_len: int, pad_id: int) -> PackedRow:
    lengths = [len(ids) for ids, _ in examples]
    padding = seq_len - sum(lengths)
    ids = [ids for ids, _ in examples] + [np.full(padding, pad_id, dtype=np.int32)]
    masks = [mask for _, mask in examples] + [np.zeros(padding, dtype=np.int8)]
    if padding:
        lengths.append(padding)
    return PackedRow(np.concatenate(ids), np.array(lengths, dtype=np.int32), np.concatenate(masks))


def _slice(column: pa.ListArray, at: int) -> np.ndarray:
    offsets = column.offsets
    values: np.ndarray = column.values.slice(
        offsets[at].as_py(), offsets[at + 1].as_py() - offsets[at].as_py()
    ).to_numpy()
    return values


def _to_batches(rows: Iterable[PackedRow]) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = []
    waiting: list[PackedRow] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == BATCH_ROWS:
            batches.append(_to_batch(waiting))
            waiting = []
    return [*batches, _to_batch(waiting)] if waiting else batches


def _to_batch(rows: Sequence[PackedRow]) -> pa.RecordBatch:
    columns = []
    for name in SCHEMA.names:
        values = [getattr(row, name) for row in rows]
        offsets = np.cumsum([0, *(len(value) for value in values)], dtype=np.int32)
        columns.append(pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(values))))
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}

"""Of a stage's many metrics, those worth a place in a narrow table, the most telling first."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

TELLING = (
    *("documents", "tokens", "pairs", "dropped"),
    *("raw", "accepted", "acceptance_rate", "samples", "solved_share"),
    *("eval/open_book/right", "eval/open_book/valid", "eval/text/bits_per_byte", "eval/*/right"),
    *("correction/before/right", "correction/after/right", "correction/best/right", "correction/revised/right"),
    *("eval_bits_per_byte", "3-gram_bits_per_byte", "5-gram_bits_per_byte", "eval_loss_nats", "train_loss", "steps"),
)


def number(value: float) -> str:
    """Return a figure short enough for a table: 12,345 or 2.137."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def short_name(name: str) -> str:
    """Return a metric's name as people say it: eval/open_book/right -> right, eval/call/right -> call right."""
    parts = [part for part in name.split("/") if part not in {"eval", "correction", "open_book", "text"}]
    said = " ".join(parts).replace("_", " ").removeprefix("eval ")
    return said.removesuffix(" bits per byte") if "-gram" in said else said


def figures(metrics: Mapping[str, float], most: int = 3) -> str:
    """Return the figures of a stage that tell most, in one line."""
    found = [name for pattern in TELLING for name in metrics if fnmatchcase(name, pattern)]
    names = list(dict.fromkeys(found)) or list(metrics)
    return "  ".join(f"{short_name(name)} {number(metrics[name])}" for name in names[:most])

"""Figures as people read them: of a stage's many metrics the most telling first, short numbers, durations."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

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


def clock(seconds: float) -> str:
    """Return a duration as people write it: 8.4 s, 2 min 05 s, 1 h 12 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def short_name(name: str) -> str:
    """Return a metric's name as people say it: eval/open_book/right -> right, eval/call/right -> call right."""
    parts = [part for part in name.split("/") if part not in {"eval", "correction", "open_book", "text"}]
    said = " ".join(parts).replace("_", " ").removeprefix("eval ")
    return said.removesuffix(" bits per byte") if "-gram" in said else said


def figures(metrics: Mapping[str, float], most: int = 3, room: int = 0) -> str:
    """Return the figures of a stage that tell most, in one line: as many whole ones as fit `room` characters, 0 = any."""
    found = [name for pattern in TELLING for name in metrics if fnmatchcase(name, pattern)]
    names = list(dict.fromkeys(found)) or list(metrics)
    said = [f"{short_name(name)} {number(metrics[name])}" for name in names[:most]]
    while room and len(said) > 1 and len("  ".join(said)) > room:
        said.pop()
    return "  ".join(said)


def say_progress(progress: Mapping[str, Any], room: int = 0) -> str:
    """Return progress as a line: 120/600 step  4,200 tok/s  loss 3.215  2 min 05 s left.

    Where it is longer than `room` characters (0 = any), the rate goes first, then the loss, then the time that is left.
    """
    parts = {"done": f"{progress.get('done', 0)}/{progress.get('total', 0)} {progress.get('unit', '')}".strip()}
    if part := progress.get("part"):
        parts = {"part": str(part), **parts}
    if rate := progress.get("tokens_per_second"):
        parts["rate"] = f"{float(rate):,.0f} tok/s"
    if (loss := progress.get("loss")) is not None:
        parts["loss"] = f"loss {float(loss):.3f}"
    if (eta := progress.get("eta_seconds", progress.get("eta"))) is not None:
        parts["eta"] = f"{clock(float(eta))} left" if float(eta) else "finishing"
    for name in ("rate", "loss", "eta"):
        if room and len("  ".join(parts.values())) > room:
            parts.pop(name, None)
    return "  ".join(parts.values())

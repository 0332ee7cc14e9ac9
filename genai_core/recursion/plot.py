"""The metrics of a generation as one picture: the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

PANELS = (
    ("text/bits_per_byte", "held-out bits per byte"),
    ("open_book/right", "right answers"),
    ("distinct_2", "distinct-2"),
    ("self_bleu", "self-BLEU"),
    ("tail_coverage", "tail coverage"),
    ("vendi", "Vendi score"),
)
COLOURS = {"origin": "#7f7f7f", "parent": "#4c78a8", "control": "#72b7b2", "candidate": "#e45756"}


def plot_generation(path: Path, figures: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Write a PNG with one panel a metric and one bar a model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    roles: Sequence[str] = [role for role in COLOURS if role in figures]
    for panel, (metric, name) in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
        shown = [role for role in roles if metric in figures[role]]
        bars = panel.bar(shown, [figures[role][metric] for role in shown], color=[COLOURS[role] for role in shown])
        panel.bar_label(bars, fmt="%.3g", fontsize=7)
        panel.margins(y=0.12)  # room for the numbers above the bars
        panel.set_title(name, fontsize=9)
        panel.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    # without "Software" there is no version in the file; Agg writes no date
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})

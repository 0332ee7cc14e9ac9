"""The charts of a run, as SVG that is legible on light and on dark: the same bytes for the same figures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

SMOOTHED = 15
"""Steps of the running mean that is drawn over a long curve."""

GREY = "#808894"
ACCENT = "#4c78a8"


def draw_curves(title: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Return curves over steps, (step, value) by name; a long one pale, with its running mean."""
    import numpy as np

    figure, (axes,) = _sheet(1, (6.4, 3.4))
    for name, curve in curves.items():
        steps, values = zip(*curve, strict=True)
        few = len(steps) < 3 * SMOOTHED
        (line,) = axes.plot(
            steps, values, linewidth=1.2, alpha=1.0 if few else 0.25, marker="o" if few else "", markersize=3
        )
        if few:
            line.set_label(name)
        else:
            mean = np.convolve(values, np.full(SMOOTHED, 1 / SMOOTHED), mode="valid")
            axes.plot(steps[SMOOTHED - 1 :], mean, linewidth=1.4, color=line.get_color(), label=name)
    axes.set_xlabel("step", color=GREY, fontsize=9)
    axes.legend(frameon=False, fontsize=8, labelcolor=GREY)
    return _to_svg(figure, axes, title)


def draw_stages(title: str, values: Mapping[str, float]) -> str:
    """Return one point a model in the order in which they were made; control arms are hollow."""
    figure, (axes,) = _sheet(1, (6.4, 3.4))
    names = list(values)
    kept = [index for index, name in enumerate(names) if "control" not in name]
    axes.plot(kept, [values[names[index]] for index in kept], linewidth=1.2, color=ACCENT)
    for index, name in enumerate(names):
        face = "none" if "control" in name else ACCENT
        axes.plot(index, values[name], marker="o", markersize=5, color=ACCENT, markerfacecolor=face)
        axes.annotate(
            f"{values[name]:.3f}", (index, values[name]), (0, 6), textcoords="offset points", ha="center",
            fontsize=7, color=GREY,
        )  # fmt: skip
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right")
    axes.margins(y=0.15)
    return _to_svg(figure, axes, title)


def draw_transitions(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Return one 2 x 2 table for each comparison: right or wrong before (down), right or wrong after (across).

    Args:
        comparisons: each with `moment`, `arm`, `baseline` and `transitions` (cc, ci, ic, ii).
    """
    columns = 3
    figure, panels = _sheet(len(comparisons), (6.4, 2.2 * -(-len(comparisons) // columns)), columns)
    for axes, one in zip(panels, comparisons, strict=True):
        counts = one["transitions"]
        cells = [[counts["cc"], counts["ci"]], [counts["ic"], counts["ii"]]]
        axes.imshow(cells, cmap="Blues", vmin=0, vmax=2 * max(1, *cells[0], *cells[1]))
        for down in (0, 1):
            for across in (0, 1):
                axes.text(
                    across, down, str(cells[down][across]), ha="center", va="center", fontsize=10, color="#1c2530"
                )
        axes.set_xticks([0, 1], ["right", "wrong"])
        axes.set_yticks([0, 1], ["right", "wrong"])
        axes.set_xlabel(one["arm"], color=GREY, fontsize=8)
        axes.set_ylabel(one["baseline"], color=GREY, fontsize=8)
        axes.set_title(one["moment"], color=GREY, fontsize=8)
        axes.grid(False)
    return _to_svg(figure)


def _sheet(count: int, size: tuple[float, float], columns: int = 1) -> tuple[Any, list[Any]]:
    """Return a figure and `count` axes in the run's style; no pyplot: that would be one state for all threads."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    rows = -(-count // columns)
    panels = [figure.add_subplot(rows, min(columns, count), index + 1) for index in range(count)]
    for axes in panels:
        axes.tick_params(colors=GREY, labelsize=8)
        axes.grid(alpha=0.25)
        for spine in axes.spines.values():
            spine.set_color(GREY)
    return figure, panels


def _to_svg(figure: Any, axes: Any = None, title: str = "") -> str:
    import matplotlib as mpl

    if axes is not None:
        axes.set_title(title, color=GREY, fontsize=10, loc="left")
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "genai"}):  # else the ids in it are drawn by chance
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return "".join(out.getvalue().partition("<svg")[1:])

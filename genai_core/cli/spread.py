"""`genai spread`: the figures of several runs side by side, with their mean and what chance leaves open.

One run is an anecdote: two seeds of a small model differ by more than most changes to it. The interval is Student's over
the runs, mean +- t(0.975, n - 1) s / sqrt(n): another run with another seed is expected to move the mean inside it.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from genai_core.cli.options import settings_of
from genai_core.cli.report import find_report
from genai_core.errors import ConfigError
from tasks.figures import number


def collect_figures(report: Mapping[str, Any]) -> dict[str, float]:
    """Return every figure of a run's report, named `stage: metric`, in the order of the stages."""
    return {
        f"{stage['name']}: {metric.removeprefix('eval/')}": float(value)
        for stage in report["stages"]
        for metric, value in stage["metrics"].items()
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and half width of Student's 95 % interval; the width of one value alone is infinite."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.inf
    from scipy.stats import t  # a second to import, and only this command needs it

    return mean, float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def table_of(runs: Mapping[str, Mapping[str, float]], only: Sequence[str]) -> str:
    """Return a Markdown table of the figures that all runs have and that match a pattern, if patterns are given.

    Raises:
        ConfigError: no figure is left.
    """
    first = next(iter(runs.values()))
    names = [
        name
        for name in first
        if all(name in figures for figures in runs.values())
        and (not only or any(fnmatchcase(name, f"*{pattern}*") for pattern in only))
    ]
    if not names:
        wanted = f" matches {', '.join(map(repr, only))}" if only else " is in all of these runs"
        raise ConfigError(f"No figure{wanted}. The first run has {len(first):,}, such as {', '.join(list(first)[:3])}.")
    lines = [
        f"| figure | {' | '.join(runs)} | mean | 95 % interval |",
        f"| --- |{' --- |' * (len(runs) + 2)}",
    ]
    for name in names:
        values = [figures[name] for figures in runs.values()]
        mean, half = interval(values)
        between = "" if math.isinf(half) else f"{number(mean - half)} to {number(mean + half)}"
        lines.append(f"| {name} | {' | '.join(map(number, values))} | {number(mean)} | {between} |")
    return "\n".join(lines)


def show_spread(which: Sequence[str], only: Sequence[str], out: Path | None) -> None:
    """Print the table of some runs; as Markdown where the output is no terminal, or into a file.

    Raises:
        ConfigError: a run that is not there, runs of different recipes, the same run twice.
    """
    settings = settings_of()
    runs: dict[str, dict[str, float]] = {}
    recipes: set[str] = set()
    for name in which:
        path = find_report(name, settings)
        if path.stem in runs:
            raise ConfigError(f"{name!r} is {path.stem}, which is named already. Write more of the names.")
        report = json.loads(path.read_text(encoding="utf-8"))
        runs[path.stem] = collect_figures(report)
        recipes.add(report["recipe"])
    if len(recipes) > 1:
        raise ConfigError(
            f"These are runs of different recipes ({', '.join(sorted(recipes))}), whose spread says nothing."
        )
    table = table_of(runs, only)
    if out is not None:
        out.write_text(table + "\n", encoding="utf-8")
        return
    console = Console(highlight=False, soft_wrap=True)
    if console.is_terminal:
        console.print(Markdown(table))
    else:
        console.print(table, markup=False)

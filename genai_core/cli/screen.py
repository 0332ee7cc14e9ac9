"""What a person sees while stages run: one live line for the running stage, one line for every finished one.

On a terminal the live line is redrawn; in a pipe or a file, a line is printed when a stage ends and, on long ones,
now and then in between.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tasks.figures import clock, figures, say_progress

STATUS_STYLE = {
    "computed": "green",
    "reused": "cyan",
    "refused": "yellow",
    "skipped": "dim",
    "interrupted": "yellow",
    "failed": "bold red",
}
PIPED_EVERY_SECONDS = 30.0
REDRAW_PER_SECOND = 4
TITLE = 24  # "evaluate-base-16-shot" and a gap


class Screen:
    """Hears a session's events and shows them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title = ""
        self._started = 0.0
        self._progress: dict[str, Any] = {}
        self._note = ""
        self._spoke = 0.0
        self._live = Live(
            console=console, refresh_per_second=REDRAW_PER_SECOND, transient=True, get_renderable=self._draw
        )

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take in one event."""
        match event["type"]:
            case "stage":
                self._begin(event["title"])
            case "waiting":
                self._say_once(f"another run is computing it ({event['holder']}); waiting for its result")
            case "journal":
                self._hear_journal(event["row"])
            case "lost":  # Prefect tries it again, or ends the run with the reason
                self._remark(f"{event['title']}: {event['reason']}", "yellow")
            case "row":
                self._show_row(event["row"])
            case "refused":
                for reason in event["reasons"]:
                    self._remark(f"refused: {reason}", "yellow")

    def _begin(self, title: str) -> None:
        self._title, self._started, self._progress, self._note = title, time.monotonic(), {}, ""
        self._spoke = time.monotonic()

    def _hear_journal(self, row: Mapping[str, Any]) -> None:
        if "p" in row:
            self._progress = row["p"]
            if not self._console.is_terminal and time.monotonic() - self._spoke > PIPED_EVERY_SECONDS:
                self._spoke = time.monotonic()
                self._remark(f"... {self._title}: {self._say_progress()}", indent=2)
        elif "e" in row:
            self._remark(f"{self._title}: {row['e']}")

    def _say_once(self, note: str) -> None:
        if note != self._note:
            self._note = note
            self._remark(f"{self._title}: {note}", indent=2)

    def _remark(self, text: str, style: str = "dim", indent: int = 4) -> None:
        """Print a remark, its further lines indented like the first; in a file it is one line."""
        if self._console.is_terminal:
            self._console.print(Padding(Text(text, style=style), (0, 0, 0, indent)))
        else:
            self._console.print(" " * indent + text, markup=False, soft_wrap=True)

    def _show_row(self, row: Any) -> None:
        self._title, self._progress = "", {}
        line = Text("  ")
        line.append(f"{row.name:<{TITLE - 1}} ")  # longer ones push what follows aside
        line.append(f"{row.status:<12}", style=STATUS_STYLE.get(row.status, ""))
        line.append(f"{clock(row.seconds):>12}", style="dim")
        room = max(40, self._console.width - 1)
        if said := figures(row.metrics, room=room - len(line) - 2):
            line.append(f"  {said}", style="dim")
        line.truncate(room, overflow="ellipsis")
        self._console.print(line)
        if row.status in {"refused", "skipped"} and row.name != "promote":  # the gate's reasons stand below the table
            for reason in row.reasons:
                self._remark(reason, "yellow")

    def _say_progress(self, room: int = 0) -> str:
        return say_progress(self._progress, room) if self._progress else "starting"

    def _draw(self) -> Any:
        if not self._title:
            return Text("")
        grid = Table.grid(padding=(0, 1))
        total = float(self._progress.get("total", 0) or 0)
        width = 20 if self._console.width >= 100 else 8
        bar = ProgressBar(
            total=total or 1.0,
            completed=float(self._progress.get("done", 0)),
            width=width,
            pulse=not total,
            # the terminal's own colours: what rich has is dark on dark, or heavier than what is done on light
            style="bright_black",
            complete_style="blue",
            finished_style="blue",
            pulse_style="blue",
        )
        since = clock(time.monotonic() - self._started)
        said = Text(self._say_progress(self._console.width - TITLE - width - 16), overflow="ellipsis", no_wrap=True)
        grid.add_row(Text(f"  {self._title:<{TITLE}}", style="bold"), Text(f"{since:>9}", style="dim"), bar, said)
        return grid


def end_table(rows: Sequence[Any], width: int) -> Table:
    """Return the table at the end of a run: stage, computed or reused, seconds, key figures."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    # fixed widths: where the terminal is narrow, only the figures may give way
    longest = max((len(row.name) for row in rows), default=5)
    fixed = {"stage": longest, "status": max((len(row.status) for row in rows), default=8), "seconds": 7}
    if width >= 120:
        fixed["artifact"] = max((len(row.artifact.label()) for row in rows if row.artifact), default=8)
    for name, size in fixed.items():
        style, justify = ("dim" if name == "artifact" else None), ("right" if name == "seconds" else "left")
        table.add_column(name, style=style, justify=justify, no_wrap=True, min_width=size)  # type: ignore[arg-type]
    room = max(8, width - sum(size + 2 for size in fixed.values()))
    table.add_column("figures", style="dim", overflow="ellipsis", no_wrap=True, max_width=room)
    for row in rows:
        cells: list[Any] = [row.name, Text(row.status, style=STATUS_STYLE.get(row.status, "")), f"{row.seconds:.1f}"]
        if width >= 120:
            cells.append(row.artifact.label() if row.artifact else "")
        cells.append(figures(row.metrics, 4 if width >= 120 else 3, room))
        table.add_row(*cells)
    return table


def table_of(rows: Sequence[Mapping[str, str]]) -> Table:
    """Return rows of named cells as a table, the first column to the left; a narrow terminal folds its cells."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    return table

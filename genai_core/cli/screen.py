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
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tasks.figures import figures

STATUS_STYLE = {
    "computed": "green",
    "reused": "cyan",
    "refused": "yellow",
    "skipped": "dim",
    "failed": "bold red",
    "compute": "white",
}
PIPED_EVERY_SECONDS = 30.0
REDRAW_PER_SECOND = 4


def clock(seconds: float) -> str:
    """Return a duration as people write it: 8.4 s, 2 min 05 s, 1 h 12 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


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
            case "row":
                self._show_row(event["row"])
            case "refused":
                for reason in event["reasons"]:
                    self._console.print(Text(f"    {reason}", style="yellow"))

    def _begin(self, title: str) -> None:
        self._title, self._started, self._progress, self._note = title, time.monotonic(), {}, ""
        self._spoke = time.monotonic()

    def _hear_journal(self, row: Mapping[str, Any]) -> None:
        if "p" in row:
            self._progress = row["p"]
            if not self._console.is_terminal and time.monotonic() - self._spoke > PIPED_EVERY_SECONDS:
                self._spoke = time.monotonic()
                self._console.print(Text(f"  ... {self._title}: {self._say_progress()}", style="dim"))
        elif "e" in row:
            self._console.print(Text(f"    {self._title}: {row['e']}", style="dim"))

    def _say_once(self, note: str) -> None:
        if note != self._note:
            self._note = note
            self._console.print(Text(f"  {self._title}: {note}", style="dim"))

    def _show_row(self, row: Any) -> None:
        self._title, self._progress = "", {}
        line = Text("  ")
        line.append(f"{row.name:<20}")
        line.append(f"{row.status:<10}", style=STATUS_STYLE.get(row.status, ""))
        line.append(f"{clock(row.seconds):>12}   ", style="dim")
        line.append(figures(row.metrics), style="dim")
        line.truncate(max(40, self._console.width - 1), overflow="ellipsis")
        self._console.print(line)
        if row.status in {"refused", "skipped"} and row.name != "promote":  # the gate's reasons stand below the table
            for reason in row.reasons:
                self._console.print(Text(f"    {reason}", style="yellow"))

    def _say_progress(self) -> str:
        if not self._progress:
            return "starting"
        done, total = self._progress.get("done", 0), self._progress.get("total", 0)
        parts = [f"{done}/{total} {self._progress.get('unit', '')}"]
        if part := self._progress.get("part"):
            parts.insert(0, str(part))
        if rate := self._progress.get("tokens_per_second"):
            parts.append(f"{float(rate):,.0f} tok/s")
        if (loss := self._progress.get("loss")) is not None:
            parts.append(f"loss {float(loss):.3f}")
        if (eta := self._progress.get("eta_seconds", self._progress.get("eta"))) is not None:
            parts.append(f"{clock(float(eta))} left")
        return "  ".join(parts)

    def _draw(self) -> Any:
        if not self._title:
            return Text("")
        grid = Table.grid(padding=(0, 1))
        total = float(self._progress.get("total", 0) or 0)
        bar = ProgressBar(total=total or 1.0, completed=float(self._progress.get("done", 0)), width=20, pulse=not total)
        grid.add_row(
            Text(f"  {self._title:<20}", style="bold"),
            bar,
            Text(self._say_progress(), overflow="ellipsis", no_wrap=True),
            Text(clock(time.monotonic() - self._started), style="dim"),
        )
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
        cells.append(figures(row.metrics, 4 if width >= 120 else 3))
        table.add_row(*cells)
    return table

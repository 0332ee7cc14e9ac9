"""The status lines of `genai up`: one for each service, redrawn on a terminal; in a pipe, a line whenever one changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from genai_core.cli.supervise import Service, State

STYLE = {
    State.READY: "green",
    State.SILENT: "yellow",
    State.RESTARTING: "yellow",
    State.FAILED: "bold red",
}
NAME, STATE, ADDRESS = 8, 10, 28
"""Widths, in characters."""


class Board:
    """Shows services."""

    def __init__(self, services: Sequence[Service], console: Console | None = None) -> None:
        self._services = services
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, get_renderable=self._draw)
        self._shown: dict[str, tuple[State, str]] = {}

    def __enter__(self) -> Board:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self) -> None:
        """Show what has changed."""
        changed = [one for one in self._services if self._shown.get(one.name) != (one.state, one.detail)]
        if not changed:
            return
        self._shown = {one.name: (one.state, one.detail) for one in self._services}
        if self._console.is_terminal:
            self._live.refresh()
            return
        for service in changed:
            self._console.print(line_of(service), soft_wrap=True)
        self._console.file.flush()

    def _draw(self) -> Any:
        grid = Table.grid()
        grid.add_column(no_wrap=True, overflow="ellipsis")  # one line a service, however narrow the window is
        for service in self._services:
            grid.add_row(line_of(service))
        return grid


def line_of(service: Service) -> Text:
    """Return the line of a service: name, state, address, and what there is to say."""
    return Text.assemble(
        (f"{service.name:<{NAME}}", "bold"),
        (f"{service.state:<{STATE}} ", STYLE.get(service.state, "dim")),
        f"{service.address:<{ADDRESS}}",
        (f"  {service.detail}" if service.detail else "", "dim"),
    )

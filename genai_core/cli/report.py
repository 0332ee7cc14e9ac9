"""`genai report`: find the report of a run and write its page."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from genai_core.cli.locate import open_artifacts
from genai_core.cli.options import settings_of
from genai_core.config.settings import Settings
from genai_core.errors import ConfigError
from tasks.page import describe, render


def reports_folder(settings: Settings) -> Path:
    """Return the folder that `genai run` leaves its reports in."""
    return settings.home / "reports"


def find_report(which: str, settings: Settings) -> Path:
    """Return the report of a run: a file, the beginning of a name in the reports folder, or '' for the newest.

    Raises:
        ConfigError: there is none such; names what there is.
    """
    if which and Path(which).is_file():
        return Path(which)
    known = sorted(reports_folder(settings).glob("*.json"))
    chosen = [path for path in known if path.stem.startswith(which)] if which else known
    if chosen:
        return chosen[-1]
    there = ", ".join(path.stem for path in known[-5:]) or "none; `genai run` leaves one"
    raise ConfigError(f"There is no report of {which or 'any run'!r}. The newest are: {there}.")


def show_report(which: str, out: Path | None, mlflow: str, storage: str) -> None:
    """Write the page of a run and say where."""
    settings = settings_of(storage, mlflow)
    path = find_report(which, settings)
    target = out or path.with_suffix(".html")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {target.absolute().parent}. Make it, or choose another.")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        page = describe(report, open_artifacts(settings), settings)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no report of a run ({type(error).__name__}: {error}).") from None
    target.write_text(render(page), encoding="utf-8")
    Console(highlight=False, soft_wrap=True).print(str(target))

"""`genai run`: check, forecast, run, show, report."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from genai_core.cli.options import settings_of
from genai_core.cli.report import reports_folder
from genai_core.cli.screen import Screen, end_table, table_of
from genai_core.cli.services import await_prefect, begin_prefect, outside_prefect, prefect_environment
from genai_core.config.load import load_recipe, nearest
from genai_core.config.recipe import Recipe
from genai_core.config.settings import Settings
from genai_core.errors import (
    ConfigError,
    DiskFullError,
    GenaiCoreError,
    InterruptedRunError,
    TransientError,
    UserError,
    is_disk_full,
)
from genai_core.launch.submit import Launcher, open_launcher
from genai_core.storage.artifact import ArtifactKind
from tasks.figures import clock
from tasks.session import report_of_run

FILE_COLUMNS = 160
LEAST_FREE_BYTES = 10_000_000
"""With less, what ends a run in no words of ours is put down to the disk: checkpoints and databases are larger."""


def run_recipe(
    name: str,
    overrides: Sequence[str],
    report: Path | None,
    storage: str,
    mlflow: str,
    ray: str,
    refresh: Sequence[str],
    flow: str = "lifecycle",
) -> int:
    """Run a recipe, or the part of it that another flow computes; return the exit code."""
    from flows.registry import check_flow

    started = time.monotonic()
    console = open_console()
    recipe = load_recipe(name, overrides)
    check_flow(flow)
    settings = settings_of(storage, mlflow, ray)
    if report is not None and not report.absolute().parent.is_dir():
        raise ConfigError(
            f"--report {report}: there is no folder {report.absolute().parent}. Make it, or choose another."
        )
    os.environ.update({key: os.environ.get(key, value) for key, value in prefect_environment(settings.home).items()})
    stop = StopButton(console)
    stop.arm()
    run = Run(recipe, settings, list(refresh), console, stop, started, flow)
    try:
        with closing(run):
            run.prepare()
            run.execute()
    except GenaiCoreError as error:
        run.status = "interrupted" if isinstance(error, InterruptedRunError) else "failed"
        if isinstance(error, UserError) and not run.rows:
            raise  # nothing ran: the message is all there is to show
        run.show(str(error))
        run.write(report)
        return error.exit_code
    run.show()
    run.write(report)
    return 3 if run.status == "refused" else 0


def open_console() -> Console:
    """Return the console of a run; a file, which has no width, gets lines long enough to leave nothing out."""
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if has_width else FILE_COLUMNS)


class StopButton:
    """Turns SIGINT and SIGTERM into a request to stop at the next good point; a second Ctrl-C ends at once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pressed = threading.Event()

    def arm(self) -> None:
        """Take both signals. Again inside a flow: Prefect takes SIGTERM at its start, and would break off anywhere."""
        signal.signal(signal.SIGINT, self._press)
        signal.signal(signal.SIGTERM, self._press)

    def is_pressed(self) -> bool:
        """Return whether a person or the system wants the run to stop."""
        return self._pressed.is_set()

    def _press(self, number: int, _: Any) -> None:
        if self.is_pressed() and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._pressed.set()
        self._console.print(Text("  stopping: the running stage writes its state first (Ctrl-C again to stop at once)"))


class Run:
    """One run of a recipe, from check to report."""

    def __init__(
        self,
        recipe: Recipe,
        settings: Settings,
        refresh: list[str],
        console: Console,
        stop: StopButton,
        started: float,
        flow: str = "lifecycle",
    ) -> None:
        self.recipe = recipe
        self.settings = settings
        self.refresh = refresh
        self.console = console
        self.stop = stop
        self.started = started
        self.flow = flow
        self.status = "failed"
        self.begun = False
        self.rows: list[Any] = []
        self.model: dict[str, Any] | None = None
        self.comparison: list[dict[str, str]] = []
        self.forecasts: dict[str, Any] = {}
        self.prefect_api = outside_prefect()
        self.launcher: Launcher | None = None

    def prepare(self) -> None:
        """Check everything that can be checked before anything runs, and say what will happen."""
        from genai_core.storage.open import open_store
        from tasks.sources import resolve_sources

        # what the user may have mistaken is refused before a server is started or a file written
        resolve_sources(self.recipe)
        open_store(self.settings.storage_uri, self.settings)
        from genai_core.tracking.connection import check_address, check_reachable

        check_address(self.settings.tracking_uri)
        if self.refresh:
            self._check_refresh()
        needs_server = not self.prefect_api
        if needs_server:
            begin_prefect(self.settings.home)
        reachable = threading.Thread(target=self._check_tracking, args=(check_reachable,), daemon=True)
        self._tracking_error: Exception | None = None
        reachable.start()
        from flows.plan import plan
        from genai_core.augmentation.outlook import look_ahead
        from genai_core.cli.recipes import refuse_what_cannot_fit, warn

        outlook = look_ahead(self.recipe.data)
        planned = plan(self.recipe, self.settings, self.refresh, outlook, self._flow_and_walk[1])
        ray_address = self.recipe.compute.ray_address or self.settings.ray_address
        refuse_what_cannot_fit(planned, ray_address)
        self.forecasts = {row.name: row.forecast for row in planned if row.forecast}
        reused = sum(row.status == "reused" for row in planned)
        todo = [row for row in planned if row.status == "compute"]
        if todo:  # torch and Ray start while Prefect's server does
            self.launcher = open_launcher(ray_address, self.settings)
            training = any(row.artifact is not None and row.artifact.kind is ArtifactKind.MODEL for row in todo)
            self.launcher.warm_up(training=training)
        self.console.print(
            Text.assemble(("genai run ", "bold"), (self.recipe.name, "bold"), f"   store {self._say_store()}")
        )
        if todo:
            seconds = sum(row.forecast["seconds"] for row in todo if row.forecast)
            self.console.print(
                Text(f"  {reused} stages reused, {len(todo)} to compute, about {clock(seconds)} of work", style="dim")
            )
        else:
            self.console.print(Text(f"  all {reused} stages are there already", style="dim"))
        warn(self.console, outlook, self.recipe)
        reachable.join()
        if self._tracking_error is not None:
            raise self._tracking_error
        if needs_server:
            server = await_prefect(self.settings.home)
            self.prefect_api = f"{server}/api"
            self.console.print(Text(f"  Prefect at {server}", style="dim"))

    @cached_property
    def _flow_and_walk(self) -> tuple[Callable[..., Any], Callable[[Recipe], Any]]:
        """The flow that runs and what plans it; asked for once Prefect's settings are in the environment."""
        from flows.registry import find_flow

        return find_flow(self.flow)

    def _say_store(self) -> str:
        """Return where the store is, from the working directory on if it lies below it."""
        place, here = Path(self.settings.storage_uri), Path.cwd()
        return str(place.relative_to(here)) if place.is_relative_to(here) else self.settings.storage_uri

    def _check_tracking(self, check_reachable: Any) -> None:
        try:
            check_reachable(self.settings.tracking_uri)
        except GenaiCoreError as error:
            self._tracking_error = error

    def execute(self) -> None:
        """Run the flow."""
        from flows.session import SURROUNDINGS, Surroundings, using_server

        with Screen(self.console) as screen, using_server(self.prefect_api):
            token = SURROUNDINGS.set(
                Surroundings(
                    on_event=screen.hear,
                    should_stop=self.stop.is_pressed,
                    settings=self.settings,
                    on_session=self._remember,
                    launcher=self.launcher,
                )
            )
            try:
                result = self._flow_and_walk[0](recipe=self.recipe, refresh=self.refresh)
            except GenaiCoreError:
                raise
            except Exception as error:
                self._blame_full_disk(error)
                self._blame_prefect(error)
                raise
            finally:
                SURROUNDINGS.reset(token)
        self.model = result["model"]
        self.comparison = result.get("comparison", [])
        ended = any(row["name"] == "finetune" and row["status"] == "skipped" for row in result["stages"])  # an encoder
        promotes = self.flow in {"lifecycle", "evaluation"} and not ended
        passed = self.model["gate"]["passed"] if self.model else not promotes
        self.status = "completed" if passed else "refused"

    def close(self) -> None:
        """End what was started for a flow that may never have begun."""
        if self.launcher is not None:
            self.launcher.close()

    def _blame_full_disk(self, error: Exception) -> None:
        """Raise DiskFullError if that is the cause. Prefect's server only says 500 when its database cannot grow."""
        free = shutil.disk_usage(self.settings.home).free
        if is_disk_full(error) or free < LEAST_FREE_BYTES:
            reason = str(error).strip().partition("\n")[0]
            raise DiskFullError(
                f"No space left for {self.settings.home}, {free / 1e6:.1f} MB are free ({reason}). "
                "Free some and run again: it resumes."
            ) from error

    def _blame_prefect(self, error: Exception) -> None:
        """Raise TransientError if Prefect's client gave up on its server before the first stage was begun."""
        if not self.begun and isinstance(error, RuntimeError) and "Failed to reach API" in str(error):
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            raise TransientError(
                f"Prefect's server at {self.prefect_api} did not answer as it should, before anything ran{cause}. Run "
                "again; `genai doctor` looks at it."
            ) from error

    def _remember(self, session: Any) -> None:
        self.begun = True
        self.rows = session.rows
        self.stop.arm()

    def _check_refresh(self) -> None:
        """Refuse the name of a stage that this recipe does not have: it would be passed over in silence."""
        from flows.plan import plan
        from genai_core.stages.registry import STAGES

        # with it: what is made again may be damaged, which is why
        walk = self._flow_and_walk[1]
        titles = [row.name for row in plan(self.recipe, self.settings, self.refresh, walk=walk)]
        known = list(dict.fromkeys([*titles, *STAGES]))
        for name in self.refresh:
            if name not in known:
                raise ConfigError(
                    f"--refresh {name}: there is no such stage.{nearest(name, known)} Known: {', '.join(known)}."
                )

    def show(self, error: str = "") -> None:
        """Print the end table, the model, the gate's reasons."""
        print_ = self.console.print
        print_()
        if self.rows:
            print_(end_table(self.rows, self.console.width))
            print_()
        if self.comparison:
            print_(table_of(self.comparison))
            print_()
        if self.model is not None:
            alias = f"@{self.model['alias']}" if self.model["alias"] else "(no alias)"
            verdict = "passed" if self.model["gate"]["passed"] else "refused"
            style = "green" if verdict == "passed" else "yellow"
            print_(
                Text.assemble(
                    (f"{self.model['name']} version {self.model['version']} {alias}", "bold"), f"   {self.model['uri']}"
                )
            )
            print_(Text.assemble("gate ", (verdict, style)))
            for reason in self.model["gate"]["reasons"]:
                print_(Padding(Text(reason), (0, 0, 0, 2)))
        if error:
            style = "yellow" if self.status == "interrupted" else "bold red"
            print_(Text.assemble((f"{self.status}: ", style), error))
        print_(Text(f"{self.status} in {clock(time.monotonic() - self.started)}", style="bold"))
        if self.model is not None and self.status == "completed":
            print_(Text(f"Try it:  genai chat {self.model['name']}     Look at it:  genai report", style="dim"))

    def write(self, report: Path | None) -> None:
        """Write the report, where it is wanted and among the reports of all runs, which `genai report` reads."""
        seconds = time.monotonic() - self.started
        content = report_of_run(self.recipe.name, self.status, seconds, self.rows, self.model, self.forecasts)
        text = json.dumps(content, indent=1) + "\n"
        if report is not None:
            report.write_text(text, encoding="utf-8")
        if not self.rows:
            return  # nothing ran, and nothing is left behind
        with suppress(OSError):  # on a full disk the page of a failed run is not what matters
            folder = reports_folder(self.settings)
            folder.mkdir(parents=True, exist_ok=True)
            moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            (folder / f"{moment}-{self.recipe.name}.json").write_text(text, encoding="utf-8")

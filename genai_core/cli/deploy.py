"""`genai deploy`: every flow of a recipe as a deployment on a Prefect server, with queue, schedules and automations."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from genai_core.cli.deployments import Outcome, Wanted, bring, check_schedules, make_pool, read_wanted, with_schedules
from genai_core.cli.services import known_prefect, prefect_environment
from genai_core.config.load import load_recipe
from genai_core.config.settings import Settings, read_settings
from genai_core.errors import ConfigError, TransientError
from genai_core.tracking.secrets import shown

HANDED_ON = ("STORAGE_URI", "TRACKING_URI", "RAY_ADDRESS", "S3_ENDPOINT_URL", "S3_REGION")
"""Settings of the one who deploys that workers without their own get. Keys and passwords are never among them."""

FILE_COLUMNS = 160
STYLES = {"created": "green", "updated": "yellow", "unchanged": "dim"}


@dataclass(frozen=True)
class Choices:
    """What the command line says beside the recipe."""

    crons: Sequence[str] = ()
    timezone: str = ""
    active: bool | None = None
    notify: str = ""
    pool: str = ""
    reset: bool = False


def deploy(name: str, overrides: Sequence[str], choices: Choices) -> None:
    """Deploy a recipe and say what was made, changed or left alone."""
    recipe = load_recipe(name, overrides)
    settings = read_settings()
    handed = hand_on(settings)
    directory = Path(os.environ.get("GENAI_PROJECT") or Path.cwd()).absolute()
    wanted = with_schedules(
        read_wanted(recipe, choices.pool, directory, handed), choices.crons, choices.timezone, choices.active
    )
    api = find_server(settings)
    (settings.home / "prefect").mkdir(parents=True, exist_ok=True)  # Prefect warns of a home that is not there
    os.environ.update({key: os.environ.get(key, value) for key, value in prefect_environment(settings.home).items()})
    made, outcomes, automations = bring_all(api, wanted, choices)
    console = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else FILE_COLUMNS)
    show(console, api, made, outcomes, automations, wanted[0].pool)


def hand_on(settings: Settings) -> dict[str, str]:
    """Return the settings for workers that have none of their own: the home, and what the environment says without secrets."""
    handed = {"GENAI_HOME": str(settings.home)}
    for name in HANDED_ON:
        value = os.environ.get(f"GENAI_{name}", "")
        if value and shown(value) == value:
            handed[f"GENAI_{name}"] = value
    return handed


def find_server(settings: Settings) -> str:
    """Return the API of the Prefect server: PREFECT_API_URL, else that of `genai ui`. Raises ConfigError if none is named."""
    if api := known_prefect(settings.home):
        return api
    raise ConfigError(
        f"There is no Prefect server to deploy to: PREFECT_API_URL is not set, and none runs on {settings.home}. Start one "
        "(`genai ui` in another terminal), or set PREFECT_API_URL, such as http://127.0.0.1:4200/api."
    )


def bring_all(
    api: str, wanted: Sequence[Wanted], choices: Choices
) -> tuple[list[str], list[Outcome], list[tuple[str, str]]]:
    """Bring a server to what is wanted; return what was made, the deployments and the automations.

    Raises:
        TransientError: the server does not answer.
        ConfigError: it refuses.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    from flows.session import using_server
    from genai_core.cli.automations import bring_automation, notifier, of_recipe, of_server

    check_schedules(wanted)
    with using_server(api), get_client(sync_client=True) as client:
        if (trouble := client.api_healthcheck()) is not None:
            raise TransientError(
                f"The Prefect server at {shown(api)} does not answer ({_first_line(trouble)}). Start it, or correct "
                "PREFECT_API_URL; it ends with /api."
            )
        try:
            made = make_pool(client, wanted[0].pool, list(dict.fromkeys(one.queue for one in wanted)))
            outcomes = [bring(client, one, reset=choices.reset) for one in wanted]
            found = {one.flow: one.id for one in outcomes}
            automations = [
                *of_server(notifier(client, choices.notify), page_of(api)),
                of_recipe(wanted[0].name, found["finetuning"]),
            ]
            brought = [(one.name, bring_automation(client, one)) for one in automations]
        except PrefectHTTPStatusError as error:
            code = error.response.status_code
            hint = " Set PREFECT_API_AUTH_STRING to its user:password." if code in {401, 403} else ""
            raise ConfigError(
                f"The Prefect server at {shown(api)} refused with {code}: {error.response.text[:300]}{hint}"
            ) from error
    return made, outcomes, brought


def page_of(api: str) -> str:
    """Return the address of the pages of a server, without credentials in it."""
    return shown(api).rstrip("/").removesuffix("/api")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().partition("\n")[0]


def show(
    console: Console,
    api: str,
    made: Sequence[str],
    outcomes: Sequence[Outcome],
    automations: Sequence[tuple[str, str]],
    pool: str,
) -> None:
    """Print what was made, changed or left alone."""
    for one in made:
        console.print(Text(f"made {one}", style="green"))
    deployments, others = (Table(box=None, pad_edge=False, show_header=False, padding=(0, 3, 0, 0)) for _ in range(2))
    for outcome in outcomes:
        more = "; ".join([*outcome.schedules, *outcome.notes])
        deployments.add_row(f"{outcome.flow}/{outcome.name}", Text(outcome.change, style=STYLES[outcome.change]), more)
    for name, change in automations:
        others.add_row(name, Text(change, style=STYLES[change]))
    console.print(deployments)
    console.print(others)
    if not any("tell of" in name for name, _ in automations):
        console.print(
            Text("Nobody is told of failed or refused runs: --notify https://... says where.", style="yellow")
        )
    console.print(Text(f"Page     {page_of(api)}/v2/deployments", style="dim"))
    console.print(Text(f"Worker   prefect worker start --pool {pool}", style="dim"))

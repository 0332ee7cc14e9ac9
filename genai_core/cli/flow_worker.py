"""The worker of `genai up`: deploys two recipes, then this process becomes Prefect's worker of the pool `genai`.

python -m genai_core.cli.flow_worker NAME [OPTION...]     environment: PREFECT_API_URL, GENAI_*

The options are those of `prefect worker start`, such as --with-healthcheck.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genai_core.cli.asking import ask, prefect_credentials
from genai_core.cli.deploy import Choices, deploy
from genai_core.config.load import recipe_folder
from genai_core.config.settings import read_settings
from genai_core.errors import ConfigError, GenaiCoreError, TransientError
from genai_core.storage.digest import digest_json

POOL = "genai"
RECIPES = ("quickstart", "minute")
"""Every flow of these is deployed; `genai deploy` adds others."""

PATIENCE_SECONDS = 10.0


def project_folder() -> Path:
    """Return the folder that holds `deployments` and `flows`: a checkout, or where packages are installed."""
    return recipe_folder().parent.parent


def call(api: str, path: str, body: Any = None, seconds: float = PATIENCE_SECONDS) -> Any:
    """Return what Prefect's API answers, None where there is no such thing.

    Raises ConfigError if it denies access, TransientError if it does not answer.
    """
    url = f"{api}{path}"
    answer = ask(url, body=body, headers=prefect_credentials(), seconds=seconds)
    if answer.status == 404:
        return None
    if answer.denied:
        raise ConfigError(f"Prefect at {url} denies access. Set PREFECT_API_AUTH_STRING.")
    if not 200 <= answer.status < 300:
        raise TransientError(f"Prefect at {url} failed: {answer.reason or answer.body!r}")
    return answer.json()


def online_workers(api: str, seconds: float = PATIENCE_SECONDS) -> list[str]:
    """Return the names of the pool's workers that Prefect believes alive. Raises what `call` raises."""
    found = call(api, f"/work_pools/{POOL}/workers/filter", {}, seconds) or []
    return [str(worker["name"]) for worker in found if worker["status"] == "ONLINE"]


def worker_name(home: Path, process: int = 0, number: int = 0) -> str:
    """Return the name of the n-th worker that a `genai up` of a home starts; without them, what they begin with."""
    prefix = f"genai-up-{socket.gethostname()}-{digest_json(str(home))[:6]}-"
    return f"{prefix}{process}-{number}" if process else prefix


def bury_dead_runs(api: str, home: Path) -> None:
    """Tell Prefect of runs that it believes running, but whose `genai up` was killed: they keep a deployment's place.

    Called when nothing of an earlier `genai up` of this home is left. Where other workers serve the pool, the runs may
    be theirs, and are left alone.
    """
    if any(not name.startswith(worker_name(home)) for name in online_workers(api)):
        return
    states = {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}
    wanted = {"flow_runs": {"state": states}, "work_pools": {"name": {"any_": [POOL]}}}
    state = {
        "type": "CRASHED",
        "name": "Crashed",
        "message": "The genai up that ran it was killed. Run it again: it resumes.",
    }
    for run in call(api, "/flow_runs/filter", wanted) or []:
        call(api, f"/flow_runs/{run['id']}/set_state", {"state": state})
        print(f"{run['name']} had been {run['state']['name']}: Crashed", flush=True)


def register() -> None:
    """Deploy the recipes that `genai up` serves: what is there and has not changed stays as a person has left it."""
    for name in RECIPES:
        deploy(name, [], Choices())


def become_worker(name: str, options: Sequence[str] = ()) -> None:
    """Register the deployments; then replace this process by Prefect's worker."""
    api, home = os.environ["PREFECT_API_URL"], read_settings().home
    register()
    if name.endswith("-1"):  # a later one follows a worker whose flows go on
        bury_dead_runs(api, home)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", name]
    os.execve(sys.executable, [*command, *options], dict(os.environ))


if __name__ == "__main__":
    try:
        become_worker(sys.argv[1], sys.argv[2:])
    except GenaiCoreError as error:
        sys.exit(str(error))

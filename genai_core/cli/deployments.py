"""The deployments of a recipe: what deployments/prefect.yaml wants, and a Prefect server that is brought to it.

What is there already and was deployed from the same recipe and code is left alone, with all that a person has changed in
it. Otherwise only what the recipe and the code decide is renewed. Nothing is ever deleted: schedules are known by their
slug, tags are added, and parameters that a person has changed in Prefect's page stay until they are asked to go.

    version of a deployment = digest of the parameters given, digest of all else given
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from genai_core.config.load import nearest, recipe_folder
from genai_core.config.recipe import Recipe
from genai_core.errors import ConfigError
from genai_core.storage.digest import digest_json

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.responses import DeploymentResponse

STEP = "deployments.steps.enter_project"
QUEUE_LIMITS = {"training": 1}
"""Runs of a queue that work at the same time; the others wait in order. A queue that is there keeps its limit."""


@dataclass(frozen=True)
class Timetable:
    """One schedule."""

    slug: str
    cron: str
    timezone: str
    active: bool


@dataclass(frozen=True)
class Wanted:
    """One deployment as it should be."""

    flow: str
    name: str
    description: str
    tags: tuple[str, ...]
    parameters: Mapping[str, Any]
    pool: str
    queue: str
    job_variables: Mapping[str, Any]
    pull_steps: tuple[Mapping[str, Any], ...]
    limit: int
    strategy: str
    schedules: tuple[Timetable, ...]
    told: tuple[str, ...] = ()
    """What of the schedules was asked for now: cron, active. Only that is changed in schedules that are there."""

    def version(self, schema: Mapping[str, Any]) -> str:
        """Return what the deployment is marked with, so that it is seen to be the same, or changed by a person."""
        rest = {name: getattr(self, name) for name in ("description", "pool", "queue", "limit", "strategy", "flow")}
        more = {"job": self.job_variables, "pull": list(self.pull_steps), "tags": list(self.tags), "schema": schema}
        return f"{digest_json(self.parameters)[:12]}-{digest_json({**rest, **more})[:12]}"


def read_wanted(recipe: Recipe, pool: str, directory: Path, settings: Mapping[str, str]) -> list[Wanted]:
    """Return the deployments of a recipe, every flow one, as deployments/prefect.yaml has them for the quickstart.

    Args:
        recipe: whose name they get, and what their form shows.
        pool: work pool; '' = the file's.
        directory: where the recipe's relative paths are meant.
        settings: `GENAI_*` variables for workers that have none.
    """
    content = yaml.safe_load((recipe_folder().parent / "prefect.yaml").read_text(encoding="utf-8"))
    wanted = []
    for entry in content["deployments"]:
        flow = entry["entrypoint"].rpartition(":")[2]
        work_pool, limit = entry["work_pool"], entry["concurrency_limit"]
        wanted.append(
            Wanted(
                flow=flow,
                name=recipe.name,
                description=f"{entry['description']} Recipe {recipe.name}: {recipe.description}".strip(" :"),
                tags=tuple(recipe.name if tag == entry["name"] else tag for tag in entry["tags"]),
                parameters={"recipe": recipe.model_dump(mode="json"), "refresh": []},
                pool=pool or work_pool["name"],
                queue=work_pool["work_queue_name"],
                job_variables=work_pool["job_variables"],
                pull_steps=({STEP: {"directory": str(directory), "settings": dict(settings)}},),
                limit=limit["limit"],
                strategy=limit["collision_strategy"],
                schedules=tuple(Timetable(**schedule) for schedule in entry.get("schedules", ())),
            )
        )
    return wanted


def with_schedules(wanted: Sequence[Wanted], crons: Sequence[str], timezone: str, active: bool | None) -> list[Wanted]:
    """Return the deployments with schedules of one's own. Raises ConfigError.

    Args:
        wanted: the deployments.
        crons: FLOW=CRON; it stands in the place of the flow's schedule, or is a new one.
        timezone: of those given; '' = UTC.
        active: whether all schedules are on; None = as they are.
    """
    own: dict[str, str] = {}
    for text in crons:
        flow, sign, cron = text.partition("=")
        if not sign or len(cron.split()) != 5:
            raise ConfigError(f"--cron {text!r} is not of the form FLOW=CRON, such as 'recursion=0 1 * * *'.")
        if flow not in {one.flow for one in wanted}:
            known = [one.flow for one in wanted]
            raise ConfigError(
                f"--cron {text!r}: there is no flow {flow!r}.{nearest(flow, known)} There are: {', '.join(known)}."
            )
        own[flow] = " ".join(cron.split())
    out = []
    for one in wanted:
        schedules, told = one.schedules, one.told
        if one.flow in own:
            slug = schedules[0].slug if schedules else "own"
            given = Timetable(slug, own[one.flow], timezone or "UTC", False)
            schedules, told = (given, *schedules[1:]), (*told, "cron")
        if active is not None:
            schedules, told = tuple(replace(schedule, active=active) for schedule in schedules), (*told, "active")
        out.append(replace(one, schedules=schedules, told=told))
    return out


def check_schedules(wanted: Sequence[Wanted]) -> None:
    """Raise ConfigError if a cron line or a time zone is none, before anything is made."""
    from prefect.client.schemas.schedules import CronSchedule

    for one in wanted:
        for schedule in one.schedules:
            try:
                CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
            except ValueError as error:
                raise ConfigError(
                    f"--cron '{one.flow}={schedule.cron}' with --timezone {schedule.timezone} cannot be used: "
                    f"{_reason(error)}. Five fields are minute, hour, day of the month, month, day of the week."
                ) from error


def _reason(error: ValueError) -> str:
    details: list[Any] = getattr(error, "errors", list)()
    return str(details[0]["msg"]).removeprefix("Value error, ") if details else str(error)


@dataclass
class Outcome:
    """What became of one deployment."""

    flow: str
    name: str
    id: Any
    change: str  # created, updated, unchanged
    schedules: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_pool(client: SyncPrefectClient, name: str, queues: Sequence[str]) -> list[str]:
    """Make the work pool and its queues where they are missing; return what was made."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    made = []
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        made.append(f"work pool {name}")
    for queue in queues:
        try:
            client.read_work_queue_by_name(queue, work_pool_name=name)
        except ObjectNotFound:
            limit = QUEUE_LIMITS.get(queue)
            client.create_work_queue(queue, work_pool_name=name, concurrency_limit=limit)
            made.append(f"queue {queue}" + (f", {limit} run at a time" if limit else ""))
    return made


def bring(client: SyncPrefectClient, wanted: Wanted, *, reset: bool) -> Outcome:
    """Bring one deployment to what is wanted.

    Args:
        client: of the Prefect server.
        wanted: the deployment.
        reset: whether parameters changed in Prefect's page become the recipe's again.
    """
    from prefect.client.schemas.actions import DeploymentUpdate
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.exceptions import ObjectNotFound
    from prefect.utilities.callables import parameter_schema

    flow = getattr(import_module(f"flows.{wanted.flow}"), wanted.flow)
    schema = parameter_schema(flow.fn).model_dump_for_openapi()
    version = wanted.version(schema)
    values: dict[str, Any] = {
        "version": version,
        "description": wanted.description,
        "tags": list(wanted.tags),
        "parameters": dict(wanted.parameters),
        "parameter_openapi_schema": schema,
        "enforce_parameter_schema": True,
        "entrypoint": f"flows.{wanted.flow}.{wanted.flow}",
        "path": None,
        "pull_steps": [dict(step) for step in wanted.pull_steps],
        "work_pool_name": wanted.pool,
        "work_queue_name": wanted.queue,
        "job_variables": dict(wanted.job_variables),
        "concurrency_limit": wanted.limit,
        "concurrency_options": ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy(wanted.strategy)),
    }
    try:
        found = client.read_deployment_by_name(f"{flow.name}/{wanted.name}")
    except ObjectNotFound:
        flow_id = client.create_flow_from_name(flow.name)
        made = client.create_deployment(flow_id, wanted.name, **values)
        outcome = Outcome(wanted.flow, wanted.name, made, "created")
        outcome.schedules = _bring_schedules(client, made, [], wanted.schedules, ("cron", "active"))
        return outcome
    outcome = Outcome(wanted.flow, wanted.name, found.id, "unchanged")
    edited = found.parameters != values["parameters"] and _edited(found)
    if found.version != version or (reset and edited):
        if edited and not reset:
            values["parameters"] = found.parameters
            outcome.notes.append("keeps the parameters that were changed in Prefect; --reset makes them the recipe's")
            # the mark stays that of the recipe last deployed, so that the change is seen the next time, too
            values["version"] = f"{str(found.version).partition('-')[0]}-{version.partition('-')[2]}"
        values["tags"] = list(dict.fromkeys([*values["tags"], *found.tags]))
        values["job_variables"] = _merged(found.job_variables or {}, wanted.job_variables)
        if found.version != values["version"] or values["parameters"] != found.parameters:
            client.update_deployment(found.id, DeploymentUpdate(**values))
            outcome.change = "updated"
    outcome.schedules = _bring_schedules(client, found.id, found.schedules, wanted.schedules, wanted.told)
    if outcome.schedules and outcome.change == "unchanged":
        outcome.change = "updated"
    return outcome


def _edited(found: DeploymentResponse) -> bool:
    """Return whether the parameters are no longer those that were deployed."""
    mark = str(found.version or "").partition("-")[0]
    return digest_json(found.parameters)[:12] != mark


def _merged(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is there with what is wanted over it, at every depth."""
    out = dict(there)
    for name, value in wanted.items():
        inner = out.get(name)
        out[name] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return out


def _bring_schedules(
    client: SyncPrefectClient,
    deployment: Any,
    found: Sequence[DeploymentSchedule],
    wanted: Sequence[Timetable],
    told: Sequence[str],
) -> list[str]:
    """Make schedules that are missing, change what was asked for in those that are there; say what was done."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    said = []
    by_slug = {schedule.slug: schedule for schedule in found if schedule.slug}
    for one in wanted:
        cron = CronSchedule(cron=one.cron, timezone=one.timezone)
        there = by_slug.get(one.slug)
        if there is None:
            if not told:
                continue  # a person has deleted it
            create = DeploymentScheduleCreate(schedule=cron, active=one.active, slug=one.slug)
            client.create_deployment_schedules(deployment, [create])
            said.append(f"{one.slug} {one.cron} {'on' if one.active else 'off'}")
            continue
        if "cron" in told and _differs(there.schedule, cron):
            client.update_deployment_schedule(deployment, there.id, schedule=cron)
            said.append(f"{one.slug} is now {one.cron} {one.timezone}")
        if "active" in told and there.active != one.active:
            client.update_deployment_schedule(deployment, there.id, active=one.active)
            said.append(f"{one.slug} is now {'on' if one.active else 'off'}")
    return said


def _differs(there: Any, wanted: Any) -> bool:
    return (getattr(there, "cron", ""), there.timezone or "UTC") != (wanted.cron, wanted.timezone)

"""The services that a run uses: are they there, do they let us in, are they of our versions, is their clock ours."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from urllib.parse import urlsplit

import genai_core
from genai_core.cli.asking import Answer, ask, mlflow_credentials, prefect_credentials
from genai_core.cli.findings import Finding, judge, note
from genai_core.cli.flow_worker import POOL, online_workers
from genai_core.cli.jobs import flow_asker
from genai_core.cli.services import known_prefect, known_ray, live_mlflow
from genai_core.config.settings import Settings
from genai_core.errors import GenaiCoreError
from genai_core.launch.checkup import ask_cluster
from genai_core.launch.head import job_server, ray_credentials
from genai_core.launch.left_jobs import list_jobs
from genai_core.storage.open import open_store
from genai_core.storage.s3 import endpoint_of
from genai_core.tracking.connection import check_reachable
from genai_core.tracking.secrets import shown

PATIENCE_SECONDS = 2.5
MOST_SKEW_SECONDS = 5.0
"""Clocks that are kept by NTP differ by less than one, and an HTTP date is exact to one."""


def look_at_store(settings: Settings) -> Iterator[Finding]:
    """Yield whether the store can be used, by writing and deleting a small object; and its clock."""
    uri = settings.storage_uri
    try:
        open_store(uri, settings, patience_seconds=PATIENCE_SECONDS)
    except GenaiCoreError as error:
        yield judge(False, "store", *split_remedy(str(error)))
    else:
        yield judge(True, "store", uri)
    if urlsplit(uri).scheme == "s3":
        yield from look_at_clock("store", ask(endpoint_of(settings), seconds=PATIENCE_SECONDS))


def look_at_prefect(settings: Settings) -> Iterator[Finding]:
    """Yield whether Prefect answers, lets us in, and is of our version; whether anybody works for the pool."""
    api = known_prefect(settings.home)
    if not api:
        yield judge(True, "prefect server", "starts with the first run, or with genai up")
        return
    place = shown(api)
    health = ask(f"{api}/health", seconds=PATIENCE_SECONDS)
    if not health.good:
        yield unreachable(
            "prefect server", place, health, "start it, or correct PREFECT_API_URL; unset, genai starts its own"
        )
        return
    yield from look_at_clock("prefect", health)
    told = ask(f"{api}/admin/version", headers=prefect_credentials(), seconds=PATIENCE_SECONDS)
    if told.denied:
        yield judge(
            False,
            "prefect server",
            f"{place} denies access (HTTP {told.status})",
            "set PREFECT_API_AUTH_STRING to the server's PREFECT_SERVER_API_AUTH_STRING, NAME:PASSWORD",
        )
        return
    yield same_version("prefect", str(told.json() or "unknown"), place)
    try:
        online = online_workers(api, PATIENCE_SECONDS)
    except GenaiCoreError:
        online = []
    if online:
        yield judge(True, "worker", f"pool {POOL} is served by {', '.join(online)}")
    else:
        yield note(
            "worker", f"nobody serves the pool {POOL}", "deployments wait until genai up runs; genai run does not"
        )


def look_at_mlflow(settings: Settings) -> Iterator[Finding]:
    """Yield whether MLflow answers, lets us in, and is of our version."""
    uri = settings.tracking_uri
    if uri.startswith("sqlite:"):
        uri = live_mlflow(settings.home) or uri
    if uri.startswith(("http:", "https:")):
        told = ask(f"{uri.rstrip('/')}/version", headers=mlflow_credentials(), seconds=PATIENCE_SECONDS)
        yield from look_at_clock("mlflow", told)
        if told.status == 0:
            remedy = "start it, or correct GENAI_TRACKING_URI; unset, genai uses a database of its own"
            yield unreachable("mlflow server", shown(uri), told, remedy)
            return
    try:
        check_reachable(uri, PATIENCE_SECONDS)
    except GenaiCoreError as error:
        yield judge(False, "mlflow server", *split_remedy(str(error)))
        return
    if uri.startswith(("http:", "https:")) and told.good:
        yield same_version("mlflow", told.body.decode(errors="replace").strip(), shown(uri))
    else:
        yield judge(True, "mlflow server", shown(uri))


def look_at_ray(settings: Settings, job: bool = False) -> Iterator[Finding]:
    """Yield whether the job server answers, lets us in, and is of our versions; with `job`, what a job finds there."""
    address = known_ray(settings)
    if not address:
        yield judge(True, "ray server", "a local one starts with each run")
        return
    url = job_server(address)
    if urlsplit(url).scheme not in {"http", "https"}:
        yield judge(
            False,
            "ray server",
            f"{address} is not the address of a job server",
            "write http://HOST:8265 (the dashboard's port)",
        )
        return
    told = ask(f"{url}/api/version", headers=ray_credentials(), seconds=PATIENCE_SECONDS)
    yield from look_at_clock("ray", told)
    if told.denied:
        remedy = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's token"
        yield judge(False, "ray server", f"{url} denies access (HTTP {told.status})", remedy)
        return
    content = told.json()
    if not told.good or not isinstance(content, dict) or "ray_version" not in content:
        remedy = "start it (genai up), or correct GENAI_RAY_ADDRESS; unset, each run starts a local Ray"
        yield unreachable("ray server", url, told, remedy)
        return
    yield same_version("ray", str(content["ray_version"]), url)
    more = ask(f"{url}/api/v0/cluster_metadata", headers=ray_credentials(), seconds=PATIENCE_SECONDS).json()
    python = str(((more or {}).get("data") or {}).get("pythonVersion", ""))
    if python:
        yield judge(
            python.split(".")[:2] == platform.python_version().split(".")[:2],
            "ray's python",
            f"{python}, here {platform.python_version()}",
            "run one image everywhere: what is pickled between them must mean the same",
        )
    yield from look_at_jobs(url, settings)
    if job:
        yield from look_from_cluster(url, settings)


def look_at_jobs(url: str, settings: Settings) -> Iterator[Finding]:
    """Yield how many jobs of ours a cluster has, and whether some are for flow runs that have ended."""
    try:
        jobs = list_jobs(url, settings, flow_asker(settings))
    except GenaiCoreError:  # what is wrong with the server has been said
        return
    dead = sum(job.is_dead(0) for job in jobs)
    if dead:
        yield note("ray's jobs", f"{dead} of {len(jobs)} run for flow runs that have ended", "genai jobs clean")
    else:
        yield judge(True, "ray's jobs", f"{len(jobs)} of ours wait or run")


def look_from_cluster(url: str, settings: Settings) -> Iterator[Finding]:
    """Yield what a small job finds on the cluster: our own version, the libraries', and the store."""
    try:
        found = ask_cluster(url, settings)
    except GenaiCoreError as error:
        yield judge(
            False, "ray's genai", f"no job of ours runs there: {error}", "install genai on every machine of the cluster"
        )
        return
    for name, there in found["packages"].items():
        here = genai_core.__version__ if name == "genai" else importlib.metadata.version(name)
        yield judge(
            there == here,
            f"ray's {name}",
            f"{there or 'missing'}, here {here}",
            "install the same on the cluster: one image",
        )
    remedy = "give the cluster's machines GENAI_S3_ACCESS_KEY and GENAI_S3_SECRET_KEY, and a store that they reach"
    yield judge(not found["store"], "ray's store", found["store"] or settings.storage_uri, remedy)


def look_at_clock(name: str, answer: Answer) -> Iterator[Finding]:
    """Yield how far a service's clock is from ours, if it says so."""
    if (skew := answer.skew_seconds) is None:
        return
    apart = abs(skew)
    detail = "within a second or two of ours" if apart <= MOST_SKEW_SECONDS else ""
    yield judge(
        apart <= MOST_SKEW_SECONDS,
        f"{name}'s clock",
        detail or f"{apart:.0f} s {'ahead of' if skew > 0 else 'behind'} ours",
        "set both by NTP (timedatectl set-ntp true): S3 refuses 900 s, schedules and curves are off by as much",
    )


def same_version(package: str, there: str, place: str) -> Finding:
    """Return whether a service runs the version of a package that we have."""
    here = importlib.metadata.version(package)
    return judge(
        there == here,
        f"{package} server",
        place if there == here else f"{place} runs {there}, here is {here}",
        f"run one version on both: pip install -c constraints.txt {package}=={here}",
    )


def unreachable(name: str, place: str, answer: Answer, remedy: str) -> Finding:
    """Return that a service does not answer as it should."""
    why = f"answers HTTP {answer.status}" if answer.status else f"does not answer ({answer.reason})"
    return judge(False, name, f"{place} {why}", remedy)


def split_remedy(message: str) -> tuple[str, str]:
    """Return an error of ours as what is wrong, its first sentence, and what to do, the rest."""
    wrong, _, remedy = message.partition(". ")
    return wrong, remedy or "see above"

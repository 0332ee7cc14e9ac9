"""Many runs: ten at once on one cluster, then runs for which nothing is new, hour after hour.

GENAI_NO_CHANGE_RUNS is how many of the latter (200; a smaller number for a try).
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from tests.deployments.prefect_house import until
from tests.platform.stack import BUCKET, Stack, needs_services

pytestmark = [
    pytest.mark.platform,
    needs_services,
]
DEPLOYMENT = "lifecycle/minute"
AT_ONCE = 10
NO_CHANGE = int(os.environ.get("GENAI_NO_CHANGE_RUNS", "200"))
EVERY_SECONDS = 1800.0
"""How long all of the runs of a test may take, times their number over ten."""

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
GOOD = {"Completed", "Refused"}
NO_CHANGE_SECONDS = 20.0
MEGABYTE = 1 << 20
SERVICE_GROWTH = 64 * MEGABYTE
"""What a service may hold more after the runs than after the first tenth of them: caches fill, a leak goes on."""

ROW_BYTES = 128 * 1024
"""What a run's own records may add to the databases for good: its states, logs, tasks, tables."""

EVENTS_SPREAD = 1.2
"""How many times the events of an early run those of a late one may be: they tell of it, not of those before it."""


@pytest.fixture(scope="module")
def crowd(stack: Stack) -> tuple[list[str], int]:
    """The ids of ten runs that were started at once, all ended, and how many of them were ever seen working together."""
    runs = [stack.start(DEPLOYMENT, recursion__generations=0, finetuning__seed=number % 2) for number in range(AT_ONCE)]
    together = await_all(stack, runs, EVERY_SECONDS)
    return runs, together


def await_all(stack: Stack, runs: Sequence[str], seconds: float) -> int:
    """Return how many runs worked at once at most, when all have ended."""
    most = 0

    def ended() -> bool:
        nonlocal most
        found = stack.api("/flow_runs/filter", {"flow_runs": {"id": {"any_": list(runs)}}, "limit": 200})
        most = max(most, sum(one["state_type"] == "RUNNING" for one in found))
        return all(one["state_type"] in ENDED for one in found)

    until(ended, seconds, lambda: str(Counter(stack.run(run)["state_name"] for run in runs)))
    return most


def artifacts(stack: Stack) -> int:
    """Return how many artifacts are published."""
    return sum(entry.path.endswith("/manifest.json") for entry in stack.store().list("artifacts/"))


def test_ten_runs_at_once_queue_and_share_what_they_have_in_common(stack: Stack, crowd: tuple[list[str], int]) -> None:
    runs, together = crowd
    assert {stack.run(run)["state_name"] for run in runs} <= GOOD, [stack.logs(run)[-2000:] for run in runs]
    assert together == 1, "the queue of trainings lets one work at a time"
    statuses = [stack.statuses(run) for run in runs]
    computed = Counter(stage for one in statuses for stage, status in one.items() if status == "computed")
    assert computed["augment"] == computed["pretrain"] == 1, computed
    assert computed["finetune"] == 2, computed
    made = sum(number for stage, number in computed.items() if stage != "promote")
    assert made == artifacts(stack), f"something was computed twice: {computed}"
    versions = stack.mlflow().search_model_versions("name = 'pydocs-minute'")
    assert len(versions) == 2, "one for each of two different trainings"
    verified = stack.call("storage", "verify", seconds=600)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def size_of(stack: Stack) -> dict[str, float]:
    """Return bytes: of each service in memory, of each database, of the bucket without the runs' own records."""
    memory = {
        f"memory of {name}": float(sum(one.memory_info().rss for one in service.family() if one.is_running()))
        for name, service in stack.services.items()
        if name in ("prefect", "mlflow", "worker", "ray")
    }
    databases = {f"database {name}": float(stack.database_bytes(name)) for name in ("prefect", "mlflow")}
    databases["database prefect"] -= stack.events()[1]
    listed = stack.s3().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    objects = [one for page in listed for one in page.get("Contents", [])]
    stored = float(sum(one["Size"] for one in objects if "/runs/" not in one["Key"]))
    return {**memory, **databases, "bucket": stored, "disk": float(disk_bytes(stack))}


def disk_bytes(stack: Stack) -> int:
    """Return what the home of the worker and its flows holds."""
    return sum(path.stat().st_size for path in stack.home.rglob("*") if path.is_file())


def logged_runs(stack: Stack) -> tuple[int, int]:
    """Return how many runs MLflow has of stages and of flows."""
    runs = stack.mlflow().search_runs(["1"], max_results=5000)
    flows = sum("genai.flow_run_id" in run.data.tags for run in runs)
    return len(runs) - flows, flows


def test_runs_without_anything_new_are_quick_and_leave_their_own_records_alone(
    stack: Stack, crowd: tuple[list[str], int]
) -> None:
    def run_some(number: int) -> list[dict[str, Any]]:
        runs = [stack.start(DEPLOYMENT, recursion__generations=0, finetuning__seed=0) for _ in range(number)]
        await_all(stack, runs, EVERY_SECONDS * max(1.0, number / AT_ONCE))
        return [stack.run(run) for run in runs]

    run_some(1)  # the champion may be the crowd's other candidate: making this one champion again is news, once
    before = artifacts(stack)
    logged = logged_runs(stack)
    warm = max(1, NO_CHANGE // 10)
    events = [stack.events()[0]]
    done = run_some(warm)
    early = size_of(stack)
    events.append(stack.events()[0])
    done += run_some(NO_CHANGE - warm)
    late = size_of(stack)
    events.append(stack.events()[0])

    seconds = [one["total_run_time"] for one in done]
    growth = {name: late[name] - early[name] for name in late}
    print(f"{len(done)} runs: median {statistics.median(seconds):.1f} s, longest {max(seconds):.1f} s")
    for name, value in growth.items():
        print(f"  {name}: {early[name] / MEGABYTE:.1f} MB, then {value / MEGABYTE:+.1f} MB")
    early_events, late_events = (events[1] - events[0]) / warm, (events[2] - events[1]) / max(1, NO_CHANGE - warm)
    print(f"  events of a run: {early_events:.1f}, then {late_events:.1f}; all {stack.events()[1] / MEGABYTE:.1f} MB")
    assert {one["state_name"] for one in done} <= GOOD
    statuses = Counter(status for one in done for status in stack.statuses(one["id"]).values())
    assert set(statuses) <= {"reused", "skipped", "refused"}, statuses  # whom the gate refuses, it refuses again
    assert max(seconds) < NO_CHANGE_SECONDS
    assert artifacts(stack) == before
    # each has an MLflow run of its own, which is its record, and no stage has another
    assert logged_runs(stack) == (logged[0], logged[1] + len(done))
    assert growth["bucket"] == 0
    assert late_events < EVENTS_SPREAD * early_events
    for name, value in growth.items():
        if name.startswith("memory"):
            assert value < SERVICE_GROWTH, name
        else:
            assert value < ROW_BYTES * (NO_CHANGE - warm), name

"""The state of a whole platform is backed up, all of it is lost, and what docs/operations.md tells brings it back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.platform.stack import BUCKET, PASSWORD, Stack, needs_services, postgres_program

pytestmark = [
    pytest.mark.platform,
    needs_services,
]
DEPLOYMENT = "lifecycle/minute"
RUN_SECONDS = 1200.0
DATABASES = ("prefect", "mlflow")


def new_stack(folder: Path) -> Iterator[Stack]:
    """Give a platform without services: each test brings up what it wants."""
    stack = Stack(folder)
    try:
        yield stack
    finally:
        stack.take_down()


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Stack]:
    yield from new_stack(tmp_path / "first")


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Stack]:
    yield from new_stack(tmp_path / "second")


def postgres(stack: Stack, program: str, *arguments: str) -> None:
    """Run one of Postgres's own programs on the platform's server."""
    done = subprocess.run(
        [postgres_program(program), "-h", "127.0.0.1", "-p", str(stack.ports["postgres"]), "-U", "genai", *arguments],
        env={**os.environ, "PGPASSWORD": PASSWORD},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def copy_bucket(stack: Stack, prefix: str, folder: Path) -> None:
    """Copy objects below a prefix into a folder, as any S3 client does."""
    for page in stack.s3().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/"):
        for row in page.get("Contents", []):
            target = folder / row["Key"]
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.s3().download_file(BUCKET, row["Key"], str(target))


def fill_bucket(stack: Stack, folder: Path) -> None:
    """Copy a folder's files into the bucket."""
    for path in folder.rglob("*"):
        if path.is_file():
            stack.s3().upload_file(str(path), BUCKET, path.relative_to(folder).as_posix())


def download_weights(stack: Stack, folder: Path) -> None:
    """Fetch the registered weights as plain MLflow does."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "artifacts", "download", "-u", "models:/pydocs-minute/1", "-d", str(folder)],
        env={**stack.environment, "MLFLOW_TRACKING_URI": stack.environment["GENAI_TRACKING_URI"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.rglob("*.safetensors"))


def told(stack: Stack, run: str) -> dict[str, Any]:
    """Return what must come back: versions with aliases and tags, runs, deployments with parameters, a flow run's table."""
    client = stack.mlflow()
    versions = client.search_model_versions("name = 'pydocs-minute'")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()], max_results=1000)
    deployments = stack.deployments()
    return {
        "versions": [(one.version, dict(one.tags), one.description) for one in versions],
        "aliases": dict(client.get_registered_model("pydocs-minute").aliases),
        "runs": {one.info.run_id: (one.info.status, dict(one.data.metrics)) for one in runs},
        "deployments": {name: (one["parameters"], one["schedules"]) for name, one in deployments.items()},
        "flow run": (stack.run(run)["state_name"], stack.statuses(run)),
    }


def test_what_was_backed_up_comes_back_and_nothing_is_computed_again(
    first: Stack, second: Stack, tmp_path: Path
) -> None:
    first.bring_up()
    run = first.start(DEPLOYMENT, recursion__generations=0)
    first.await_run(run, "Completed", "Refused", seconds=RUN_SECONDS)
    wanted = told(first, run)
    assert wanted["aliases"]

    backup = tmp_path / "backup"
    backup.mkdir()
    for name in DATABASES:
        postgres(first, "pg_dump", "-Fc", "-f", str(backup / f"{name}.dump"), name)
    mirrored = first.call("storage", "mirror", str(backup / "store"), seconds=600)
    assert mirrored.returncode == 0, mirrored.stdout + mirrored.stderr
    copy_bucket(first, "mlflow", backup / "bucket")
    first.take_down()

    second.bring_up(only=("postgres", "s3"))
    for name in DATABASES:
        postgres(second, "pg_restore", "-d", name, str(backup / f"{name}.dump"))
    fill_bucket(second, backup / "bucket")
    back = second.call("storage", "mirror", f"s3://{BUCKET}/store", "--storage", str(backup / "store"), seconds=600)
    assert back.returncode == 0, back.stdout + back.stderr
    second.bring_up()

    assert differing(told(second, run), wanted) == []
    shown = second.call("models", "show", "pydocs-minute")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    verified = second.call("storage", "verify", seconds=600)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    download_weights(second, tmp_path / "weights")

    again = second.start(DEPLOYMENT, recursion__generations=0)
    second.await_run(again, "Completed", "Refused", seconds=RUN_SECONDS)
    assert set(second.statuses(again).values()) <= {"reused", "skipped", "refused"}
    assert len(second.mlflow().search_model_versions("name = 'pydocs-minute'")) == 1


def differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return what did not come back as it was."""
    return [f"{name}: {found[name]} where {wanted[name]} was" for name in wanted if found[name] != wanted[name]]

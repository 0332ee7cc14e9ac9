"""The smallest mission on real services: by the API, by a schedule, by the button of Prefect's form; then MLflow's pages.

The tests go on with what the ones before have computed; alone, each computes what it needs.
"""

from __future__ import annotations

import re

import pytest

from genai_core.tracking.server import ADMIN
from tests.deployments.browser import Page, needs_chromium
from tests.deployments.prefect_house import until
from tests.deployments.run_form import button, differences, field
from tests.platform.stack import BUCKET, NODES, PASSWORD, Stack, needs_services
from tests.ports import assert_loopback_only

pytestmark = [
    pytest.mark.platform,
    needs_services,
]
DEPLOYMENT = "lifecycle/minute"
RUN_SECONDS = 1200.0


@pytest.fixture(scope="module")
def first(stack: Stack) -> str:
    """The id of a run that the API started, ended."""
    run = stack.start(DEPLOYMENT)
    stack.await_run(run, "Completed", seconds=RUN_SECONDS)
    return run


def published(stack: Stack) -> set[str]:
    """Return the artifacts of the store whose manifest is written."""
    paths = [entry.path for entry in stack.store().list("artifacts/")]
    return {path.split("/")[1] for path in paths if path.endswith("manifest.json")}


def versions(stack: Stack) -> list[str]:
    """Return the registered versions of the model."""
    found = stack.mlflow().search_model_versions("name = 'pydocs-minute'")
    return sorted(str(one.version) for one in found)


def test_nothing_listens_to_the_network(stack: Stack) -> None:
    ports = assert_loopback_only(one for service in stack.services.values() for one in service.family())
    assert len(ports) > len(stack.services)


def test_a_run_by_the_api_goes_through_every_service(stack: Stack, first: str) -> None:
    statuses = stack.statuses(first)
    assert set(statuses.values()) <= {"computed", "skipped"}, statuses
    assert stack.nodes() == NODES
    done = [name for name, status in statuses.items() if status == "computed"]
    assert len(published(stack)) >= len(done) - 1, "the store has what the stages made; promotion makes nothing"
    kept = stack.s3().list_objects_v2(Bucket=BUCKET, Prefix="mlflow/")
    assert kept["KeyCount"], "what MLflow keeps went through its server into S3"
    assert versions(stack) == ["1"]
    verified = stack.call("storage", "verify", seconds=600)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_doctor_finds_the_platform_well(stack: Stack) -> None:
    done = stack.call("doctor")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_schedule_starts_a_run_that_computes_nothing_again(stack: Stack, first: str) -> None:
    before = published(stack)
    on = stack.call("deploy", "minute", "--cron", "lifecycle=* * * * *", "--active")
    assert on.returncode == 0, on.stdout + on.stderr
    deployment = stack.deployments()[DEPLOYMENT]["id"]
    wanted = {
        "deployments": {"id": {"any_": [deployment]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}, "id": {"not_any_": [first]}},
    }
    [run, *_] = until(lambda: stack.api("/flow_runs/filter", wanted), 300)
    off = stack.call("deploy", "minute", "--inactive")
    assert off.returncode == 0, off.stdout + off.stderr
    assert run["auto_scheduled"]
    assert set(stack.statuses(run["id"]).values()) <= {"reused", "skipped"}
    assert published(stack) == before
    assert versions(stack) == ["1"]


@needs_chromium
def test_a_person_changes_two_fields_presses_the_button_and_the_run_ends_well(stack: Stack, page: Page) -> None:
    deployment = stack.deployments()[DEPLOYMENT]
    page.open(f"{stack.prefect}/v2/deployments/deployment/{deployment['id']}/run")
    page.wait("(document.body?.innerText ?? '').includes('Short name; artifacts and runs are called after it.')")
    page.type_over(field("Finetuning (Optional)", "Steps (Optional)"), "14")
    page.type_over(field("Correction (Optional)", "Samples per prompt (Optional)"), "3")
    page.picture("prefect-form")
    page.click(button("Submit"))
    wanted = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "sort": "EXPECTED_START_TIME_DESC",
    }

    def pressed() -> list[str]:
        runs = stack.api("/flow_runs/filter", wanted)
        return [str(run["id"]) for run in runs if run["parameters"]["recipe"]["finetuning"]["steps"] == 14]

    [run] = until(pressed, 60, lambda: str(page.js("document.body.innerText")))
    assert differences(deployment["parameters"], stack.run(run)["parameters"]) == {
        "recipe.finetuning.steps": (12, 14),
        "recipe.correction.samples_per_prompt": (2, 3),
    }
    stack.await_run(run, "Completed", "Refused", seconds=RUN_SECONDS)
    page.open(f"{stack.prefect}/runs/flow-run/{run}")
    page.wait("(document.body?.innerText ?? '').includes('Logs')")
    page.wait("(document.body?.innerText ?? '').includes('augment')")
    page.picture("prefect-run")


@needs_chromium
def test_mlflow_is_walked_from_the_experiment_to_the_champion(stack: Stack, first: str, page: Page) -> None:
    says = "(document.body?.innerText ?? '').includes"
    link = "[...document.querySelectorAll('a')].find"
    page.sign_in(ADMIN, PASSWORD)
    page.open(stack.mlflow_page)
    # MLflow begins with traces of LLM applications, of which there are none; trained models are behind a switch
    page.click(
        "[...document.querySelectorAll('*')].find(e => !e.children.length && e.innerText?.trim() === 'Model training')"
    )
    page.click(f"{link}(e => e.hash === '#/experiments')")
    page.click(f"{link}(e => e.innerText.trim() === 'genai')")
    page.wait(f"location.hash.includes('/runs') && {says}('minute')")
    page.picture("mlflow-experiment")
    page.click(f"{link}(e => e.hash.startsWith('#/models'))")
    page.click(f"{link}(e => e.hash === '#/models/pydocs-minute')")
    page.wait(f"{says}('champion')")
    page.picture("mlflow-model")
    page.click(f"{link}(e => /versions\\/\\d+/.test(e.hash))")
    page.wait(f"{says}('Evidence')")
    text = page.js("document.body.innerText")
    assert re.search(r"bits_per_byte", text), text[:3000]
    assert "Lineage" in text
    page.picture("mlflow-version")
    page.click(f"{link}(e => /\\/runs\\/[0-9a-f]{{32}}/.test(e.hash))")
    page.wait(f"{says}('Metrics')")
    page.picture("mlflow-run")

"""Scripts in whatever a person may write freely, and in the data: no page of Prefect, of MLflow or of ours runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from genai_core.config.load import load_recipe
from genai_core.tracking.server import ADMIN
from tests.deployments.browser import Page, needs_chromium
from tests.platform.stack import PASSWORD, Stack, needs_services

pytestmark = [
    pytest.mark.platform,
    needs_services,
    needs_chromium,
]
ATTACK = "marker <script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> [a](javascript:window.hacked=1) end"
RUN_SECONDS = 1200.0
SHOWS = """[document.body?.innerText ?? '', ...[...document.querySelectorAll('input, textarea')].map(e => e.value)]
    .some(text => text.includes('marker'))"""
SHOWN_ON = {"deployment's words", "deployment's parameters", "form", "run's parameters", "version"}
"""Where the words must be seen, or the test would show nothing; our own report has no room for them."""


def write_recipe(folder: Path) -> Path:
    """Write documents, and a recipe whose free words and paths are scripts, all of it as small as serves."""
    texts = folder / "<img src=x onerror='window.hacked = 1'>"
    texts.mkdir(parents=True)
    for number in range(40):
        words = " ".join(f"The {number}th lamp of {place} shines on {ATTACK}." for place in ("Rome", "Lima", "Oslo"))
        (texts / f"{number}.txt").write_text(words, encoding="utf-8")
    recipe = load_recipe("minute", ["recursion.generations=0"]).model_dump(mode="json")
    recipe |= {"name": "hostile", "description": ATTACK}
    recipe["data"] |= {
        "source": {"kind": "text", "path": str(texts), "license": ATTACK},
        "pairs": {"kind": "quotes", "per_document": 2},
    }
    recipe["promotion"] |= {"model_name": "hostile"}
    file = folder / "hostile.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return file


def test_no_page_runs_what_a_person_or_the_data_wrote(stack: Stack, page: Page, tmp_path: Path) -> None:
    file = write_recipe(tmp_path)
    for command, good in (("deploy", {0}), ("run", {0, 3})):  # 3: the gate has refused what learned next to nothing
        done = stack.call(command, str(file), seconds=RUN_SECONDS)
        assert done.returncode in good, done.stdout + done.stderr
    assert stack.call("report").returncode == 0
    deployment = stack.deployments()["lifecycle/hostile"]
    [run] = [str(one["id"]) for one in stack.api("/flow_runs/filter", {})]
    artifacts = stack.api("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    [version] = stack.mlflow().search_model_versions("name = 'hostile'")
    [report] = stack.home.glob("reports/*.html")

    house, tracking = stack.prefect, stack.mlflow_page
    of_deployment = f"{house}/v2/deployments/deployment/{deployment['id']}"
    pages = {
        "deployment": of_deployment,
        "deployment's words": f"{of_deployment}?tab=Description",
        "deployment's parameters": f"{of_deployment}?tab=Parameters",
        "form": f"{of_deployment}/run",
        "run": f"{house}/runs/flow-run/{run}",
        "run's parameters": f"{house}/runs/flow-run/{run}?tab=Parameters",
        **{f"artifact {one['key']}": f"{house}/artifacts/artifact/{one['id']}" for one in artifacts if one["key"]},
        "version": f"{tracking}/#/models/hostile/versions/{version.version}",
        "tracking run": f"{tracking}/#/experiments/1/runs/{version.run_id}",
        "report": report.as_uri(),
    }
    page.sign_in(ADMIN, PASSWORD)
    for name, address in pages.items():
        page.open("about:blank")
        page.open(address)
        page.wait(SHOWS if name in SHOWN_ON else "(document.body?.innerText ?? '').length > 300")
        page.js("new Promise(done => setTimeout(done, 1500))")
        assert page.js("window.hacked ?? 0") == 0, f"{name} ran a script"
        links = "[...document.querySelectorAll('a')].filter(e => e.protocol === 'javascript:').length"
        assert page.js(links) == 0, f"{name} has a link that is a script"
        if name == "version":  # a description is Markdown for Prefect, but what the card says of others' words is words
            assert page.js("document.querySelector('img[src=x]') === null"), "the card fetches what a licence names"
        print(f"{name}: {'shows the words' if page.js(SHOWS) else 'has none of them'}")
        page.picture(f"hostile-{name.replace(' ', '-')}")

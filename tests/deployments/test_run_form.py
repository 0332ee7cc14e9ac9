"""The run form in a real browser: the recipe as fields; two are changed, the button is pressed, and only they differ."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import Page, needs_chromium
from prefect_house import House, until
from run_form import button, differences, field

from genai_core.config.load import load_recipe
from genai_core.config.recipe import Recipe

pytestmark = [pytest.mark.platform, needs_chromium]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("form"))
    house.deploy("quickstart")
    yield house


def test_a_person_changes_two_fields_and_presses_the_button(house: House, page: Page) -> None:
    deployment = house.deployments()["lifecycle/quickstart"]
    page.open(f"{house.prefect}/v2/deployments/deployment/{deployment['id']}/run")
    page.wait("(document.body?.innerText ?? '').includes('Short name; artifacts and runs are called after it.')")
    text = page.js("document.body.innerText")
    for part in (
        "Tokens of one optimizer step, over all workers",
        "The model that training starts from.",
        "Scratch\nHub",
    ):
        assert part in text
    page.picture("form")
    page.type_over(field("Pretraining (Optional)", "Steps (Optional)"), "601")
    page.type_over(field("Correction (Optional)", "Samples per prompt (Optional)"), "5")
    page.picture("changed")
    page.click(button("Submit"))
    wanted = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    [run] = until(lambda: house.api("/flow_runs/filter", wanted), 60, lambda: str(page.js("document.body.innerText")))
    assert differences(deployment["parameters"], run["parameters"]) == {
        "recipe.pretraining.steps": (600, 601),
        "recipe.correction.samples_per_prompt": (4, 5),
    }


def test_a_tab_chooses_another_kind_with_its_defaults_and_a_list_another_value(house: House, page: Page) -> None:
    deployment = house.deployments()["finetuning/quickstart"]
    page.open(f"{house.prefect}/v2/deployments/deployment/{deployment['id']}/run")
    page.wait("(document.body?.innerText ?? '').includes('Short name; artifacts and runs are called after it.')")
    tab = "[...document.querySelectorAll('[role=tab]')].filter(e => e.textContent.trim() === 'Lora')[1]"
    page.click(tab)  # the second is fine-tuning's; the first is pre-training's
    page.wait(f"{tab}.getAttribute('aria-selected') === 'true'")
    page.click(field("Data (Optional)", "Context (Optional)"))
    page.click("[...document.querySelectorAll('[role=option]')].find(e => e.textContent.trim() === 'document')")
    page.picture("tab")
    page.click(button("Submit"))
    wanted = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    [run] = until(lambda: house.api("/flow_runs/filter", wanted), 60, lambda: str(page.js("document.body.innerText")))
    recipe = load_recipe("quickstart", ["finetuning.tuning.kind=lora", "data.context=document"])
    given = differences(
        recipe.model_dump(mode="json"), Recipe.model_validate(run["parameters"]["recipe"]).model_dump(mode="json")
    )
    assert given == {}

"""`genai deploy` on a real Prefect server: all is made, twice changes nothing, and what a person has changed stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect_house import House, until

from flows.registry import WALKS
from genai_core.config.load import load_recipe

pytestmark = pytest.mark.platform


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    yield House(tmp_path_factory.mktemp("deploying"))


def picture(house: House) -> dict[str, Any]:
    """Return all that a server holds of ours and of others, with when it was last changed."""
    seen: dict[str, Any] = {"deployments": house.deployments()}
    for one in seen["deployments"].values():
        for passing in ("status", "last_polled"):
            one.pop(passing, None)
    seen["automations"] = house.api("/automations/filter", {})
    seen["queues"] = {
        queue["name"]: queue["concurrency_limit"] for queue in house.api("/work_pools/genai/queues/filter", {})
    }
    return seen


def test_it_makes_every_flow_with_queue_schedules_and_automations(house: House) -> None:
    house.deploy("minute", "--cron", "finetuning=30 4 * * 1", "--timezone", "Europe/Berlin")
    seen = picture(house)
    assert set(seen["deployments"]) == {f"{flow}/minute" for flow in WALKS}
    wanted = load_recipe("minute").model_dump(mode="json")
    for name, one in seen["deployments"].items():
        assert one["parameters"] == {"recipe": wanted, "refresh": []}
        assert set(one["tags"]) == {"genai", "minute", name.partition("/")[0]}
        assert one["work_queue_name"] == ("preparation" if name == "augmentation/minute" else "training")
        assert one["global_concurrency_limit"]["limit"] == 1
        assert one["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        assert one["enforce_parameter_schema"]
    crons = {
        name: [(one["slug"], one["schedule"]["cron"], one["schedule"]["timezone"], one["active"]) for one in found]
        for name, deployment in seen["deployments"].items()
        if (found := deployment["schedules"])
    }
    assert crons == {
        "lifecycle/minute": [("weekly", "0 3 * * 6", "UTC", False)],
        "recursion/minute": [("nightly", "0 1 * * *", "UTC", False)],
        "finetuning/minute": [("own", "30 4 * * 1", "Europe/Berlin", False)],
    }
    assert seen["queues"] == {"default": None, "training": 1, "preparation": None}
    assert len(seen["automations"]) == 3
    assert {one["name"] for one in seen["automations"] if not one["enabled"]} == {"genai: a crashed run resumes"}


def test_twice_changes_nothing(house: House) -> None:
    before = picture(house)
    said = house.deploy("minute")
    assert "created" not in said and "updated" not in said
    assert picture(house) == before


def test_what_a_person_has_changed_stays_when_the_recipe_changes(house: House) -> None:
    found = house.deployments()["recursion/minute"]
    place = f"/deployments/{found['id']}"
    mine = {"recipe": {**found["parameters"]["recipe"], "seed": 7}, "refresh": []}
    house.api(place, {"parameters": mine, "tags": [*found["tags"], "mine"]}, "PATCH")
    house.api(f"{place}/schedules/{found['schedules'][0]['id']}", {"active": True}, "PATCH")
    house.api(f"{place}/schedules", [{"schedule": {"interval": 86400}, "active": False}])
    [starts] = [one for one in house.api("/automations/filter", {}) if "fine-tuned on" in one["name"]]
    house.api(f"/automations/{starts['id']}", {"enabled": False}, "PATCH")
    house.api("/automations/", {**{key: starts[key] for key in ("trigger", "actions")}, "name": "mine"})
    house.api("/work_pools/genai/queues/training", {"concurrency_limit": 2}, "PATCH")

    said = house.deploy("minute", "--set", "pretraining.steps=16")
    assert said.count("keeps the parameters") == 1
    seen = picture(house)
    now = seen["deployments"]["recursion/minute"]
    assert now["id"] == found["id"]
    assert now["parameters"] == mine
    assert "mine" in now["tags"]
    assert {(one["slug"], one["active"]) for one in now["schedules"]} == {("nightly", True), (None, False)}
    assert seen["deployments"]["lifecycle/minute"]["parameters"]["recipe"]["pretraining"]["steps"] == 16
    assert {one["name"]: one["enabled"] for one in seen["automations"]}["mine"]
    assert not next(one for one in seen["automations"] if "fine-tuned on" in one["name"])["enabled"]
    assert seen["queues"]["training"] == 2
    assert picture(house) == seen
    assert "updated" not in house.deploy("minute", "--set", "pretraining.steps=16")

    house.deploy("minute", "--set", "pretraining.steps=16", "--reset", "--inactive")
    now = house.deployments()["recursion/minute"]
    assert now["parameters"]["recipe"]["seed"] == 0
    assert {(one["slug"], one["active"]) for one in now["schedules"]} == {("nightly", False), (None, False)}


def test_a_file_of_ones_own_is_deployed_under_its_name_and_notifications_hide_their_address(house: House) -> None:
    (house.folder / "mine.yaml").write_text("name: mine\npromotion: {model_name: mine}\n")
    said = house.deploy("mine.yaml", "--notify", "https://example.org/hook?token=abc", "--active")
    assert "lifecycle/mine" in said
    seen = house.deployments()
    assert len(seen) == 2 * len(WALKS)
    assert all(one["active"] for one in seen["lifecycle/mine"]["schedules"])
    [block] = house.api("/block_documents/filter", {"block_documents": {"name": {"like_": "genai-notify"}}})
    assert "abc" not in str(block)
    names = [one["name"] for one in house.api("/automations/filter", {})]
    assert len(names) == len(set(names)) == 6, "three of the server, one of each recipe, and the person's"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cron", "finetunin=0 1 * * *"), "Did you mean 'finetuning'"),
        (("--cron", "finetuning=0 1 * *"), "FLOW=CRON"),
        (("--cron", "finetuning=99 1 * * *"), "finetuning=99 1"),
        (("--notify", "slack-webhook/nobody"), "SLUG/NAME"),
    ],
)
def test_a_mistake_is_told(house: House, arguments: tuple[str, ...], words: str) -> None:
    assert words in " ".join(house.deploy("minute", *arguments, code=2).split())


def test_a_server_that_is_away_is_named(house: House, tmp_path: Path) -> None:
    house.environment["PREFECT_API_URL"] = "http://127.0.0.1:1/api"
    try:
        assert "http://127.0.0.1:1/api does not answer" in " ".join(house.deploy("minute", code=1).split())
    finally:
        house.environment["PREFECT_API_URL"] = f"{house.prefect}/api"


def test_a_schedule_that_is_on_has_runs_ahead_of_it(house: House) -> None:
    """Of Prefect 3.8 none has with SQLAlchemy 2.1: its scheduler fails at every turn, and says so in its log alone.

    A recipe that no other test deploys: the scheduler looks at a new deployment every 5 s, at one that is there every 60.
    """
    house.deploy("pydocs-small", "--cron", "augmentation=* * * * *", "--active")
    deployment = house.deployments()["augmentation/pydocs-small"]["id"]
    ahead = until(lambda: house.api("/flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}}), 30)
    assert all(run["auto_scheduled"] and run["state_name"] == "Scheduled" for run in ahead)

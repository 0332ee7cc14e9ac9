"""Deployed runs of the smallest mission on a real worker: asked before promotion, refused, told of, started by an event.

The tests of this file go on with what the ones before have published; alone, each computes what it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prefect_house import House, ear, until, worker

pytestmark = pytest.mark.platform

MISSION = ("minute", "--set", "recursion.generations=0", "--set", "promotion.approval=true")


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    with ear() as heard:
        yield heard


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, told: tuple[str, list[dict[str, Any]]]) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("deployed"))
    house.deploy(*MISSION, "--notify", told[0])
    with worker(house):
        yield house


def aliases(house: House) -> dict[str, str]:
    from genai_core.tracking.registry import Registry

    champion = Registry(f"sqlite:///{house.home / 'mlflow.db'}").champion("pydocs-minute")
    return {} if champion is None else {"champion": champion.version}


def asked(house: House, run_id: str) -> str:
    """Return what the form of a suspended run says; it comes a moment after the state."""

    def look() -> str:
        found = house.api(f"/flow_runs/{run_id}/input/filter", {"prefix": "", "limit": 20})
        return "".join(one["value"] for one in found if one["key"].endswith("-description"))

    return str(until(look, 20))


def test_a_run_is_suspended_before_promotion_shows_evidence_and_goes_on_as_decided(house: House) -> None:
    run_id = house.start("lifecycle/minute")
    house.await_run(run_id, "Suspended")
    said = asked(house, run_id)
    for part in ("Shall `minute-", "| sealed figure | against |", "bits_per_byte", "nats"):
        assert part in said
    assert not aliases(house)
    computed = house.statuses(run_id)
    assert set(computed.values()) <= {"computed", "skipped"}

    house.api(f"/flow_runs/{run_id}/resume", {"run_input": {"decision": "promote", "note": "looks well"}})
    house.await_run(run_id, "Completed")
    again = house.statuses(run_id)
    assert again.pop("promote") == "computed"
    assert set(again) == set(computed)
    assert set(again.values()) <= {"reused", "skipped"}
    assert aliases(house) == {"champion": "1"}
    assert "promoted by a person: looks well" in house.artifacts(run_id, "gate")[0]["data"]


def test_who_is_champion_already_is_not_asked_for(house: House) -> None:
    house.await_run(house.start("lifecycle/minute"), "Completed")


def test_a_rejected_candidate_ends_refused_and_is_told_of(house: House, told: tuple[str, list[dict[str, Any]]]) -> None:
    heard = told[1]
    run_id = house.start("lifecycle/minute", finetuning__seed=1)
    house.await_run(run_id, "Suspended")
    assert "champion" in asked(house, run_id)
    house.api(f"/flow_runs/{run_id}/resume", {"run_input": {"decision": "reject", "note": "too little"}})
    run = house.await_run(run_id, "Refused")
    assert run["state_type"] == "COMPLETED"
    assert "rejected by a person: too little" in run["state"]["message"]
    assert aliases(house) == {"champion": "1"}
    until(lambda: [one for one in heard if "too little" in one["text"]], 150, lambda: f"nobody was told: {heard}")
    assert "Refused" in heard[-1]["text"]
    assert f"/runs/flow-run/{run_id}" in heard[-1]["text"]


def test_a_gate_that_refuses_asks_nobody(house: House, told: tuple[str, list[dict[str, Any]]]) -> None:
    run = house.await_run(house.start("evaluation/minute", promotion__gate__min_cases=100_000), "Refused")
    assert "fewer" in run["state"]["message"] or "cases" in run["state"]["message"]


def test_a_failed_run_is_told_of(house: House, told: tuple[str, list[dict[str, Any]]]) -> None:
    heard = told[1]
    run_id = house.start(
        "pretraining/minute",
        base={"kind": "folder", "license": "", "path": "/nowhere"},
        data__tokenizer={"kind": "base"},
    )
    run = house.await_run(run_id, "Failed")
    assert "/nowhere" in run["state"]["message"]
    until(lambda: [one for one in heard if "/nowhere" in one["text"]], 30, lambda: f"nobody was told: {heard}")


def test_a_new_dataset_is_fine_tuned_on_with_its_own_recipe_and_an_old_one_is_not(house: House) -> None:
    def runs() -> list[dict[str, Any]]:
        wanted = {"flows": {"name": {"any_": ["finetuning"]}}}
        return list(house.api("/flow_runs/filter", wanted))

    house.await_run(house.start("augmentation/minute"), "Completed")  # found again: nothing new
    run_id = house.start("augmentation/minute", data__pairs__calls_per_object=1)
    house.await_run(run_id, "Completed")
    [started] = until(runs, 30, lambda: "no run was started by the new dataset")
    assert started["parameters"]["recipe"] == house.run(run_id)["parameters"]["recipe"]
    assert (
        house.await_run(started["id"], "Completed")["deployment_id"] == house.deployments()["finetuning/minute"]["id"]
    )
    assert house.statuses(started["id"]) == {"augment": "reused", "pretrain": "computed", "finetune": "computed"}
    assert len(runs()) == 1

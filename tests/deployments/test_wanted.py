"""What `genai deploy` wants of a server, read from deployments/prefect.yaml; and where a worker's run goes first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployments.steps import enter_project
from flows.registry import WALKS
from genai_core.cli.deploy import find_server, hand_on
from genai_core.cli.deployments import STEP, Timetable, read_wanted, with_schedules
from genai_core.config.load import load_recipe
from genai_core.config.settings import read_settings
from genai_core.errors import ConfigError

MINUTE = load_recipe("minute")


def test_every_flow_is_wanted_under_the_name_of_the_recipe(tmp_path: Path) -> None:
    wanted = read_wanted(MINUTE, "", tmp_path, {"GENAI_HOME": "/x"})
    assert [one.flow for one in wanted] == list(WALKS)
    for one in wanted:
        assert one.name == "minute"
        assert one.tags == ("genai", "minute", one.flow)
        assert one.parameters == {"recipe": MINUTE.model_dump(mode="json"), "refresh": []}
        assert one.pull_steps == ({STEP: {"directory": str(tmp_path), "settings": {"GENAI_HOME": "/x"}}},)
        assert one.pool == "genai"
        assert not any(schedule.active for schedule in one.schedules)
    assert {one.flow: one.schedules[0].slug for one in wanted if one.schedules} == {
        "lifecycle": "weekly",
        "recursion": "nightly",
    }
    assert {one.pool for one in read_wanted(MINUTE, "other", tmp_path, {})} == {"other"}


def test_the_version_changes_with_what_is_given_and_not_with_schedules(tmp_path: Path) -> None:
    [first, *_] = read_wanted(MINUTE, "", tmp_path, {})
    [again, *_] = with_schedules(read_wanted(MINUTE, "", tmp_path, {}), ["lifecycle=0 5 * * *"], "", True)
    assert again.version({}) == first.version({})
    [other, *_] = read_wanted(load_recipe("minute", ["seed=1"]), "", tmp_path, {})
    assert other.version({}).split("-")[0] != first.version({}).split("-")[0]
    assert other.version({}).split("-")[1] == first.version({}).split("-")[1]
    assert first.version({"a": 1}).split("-")[1] != first.version({}).split("-")[1]


def test_schedules_are_replaced_added_and_switched(tmp_path: Path) -> None:
    wanted = read_wanted(MINUTE, "", tmp_path, {})
    crons = ["recursion=0  5 * * *", "evaluation=1 1 * * *"]
    by_flow = {one.flow: one for one in with_schedules(wanted, crons, "Asia/Tokyo", True)}
    assert by_flow["recursion"].schedules == (Timetable("nightly", "0 5 * * *", "Asia/Tokyo", True),)
    assert by_flow["evaluation"].schedules == (Timetable("own", "1 1 * * *", "Asia/Tokyo", True),)
    assert by_flow["lifecycle"].schedules[0].active
    assert by_flow["lifecycle"].told == ("active",)
    assert with_schedules(wanted, [], "", None) == wanted


def test_no_secret_is_handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENAI_STORAGE_URI", "s3://team/genai")
    monkeypatch.setenv("GENAI_TRACKING_URI", "postgresql://me:secret@db/mlflow")
    monkeypatch.setenv("GENAI_S3_SECRET_KEY", "secret")
    handed = hand_on(read_settings(home=tmp_path))
    assert handed == {"GENAI_HOME": str(tmp_path), "GENAI_STORAGE_URI": "s3://team/genai"}


def test_a_server_must_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(ConfigError, match="PREFECT_API_URL is not set"):
        find_server(read_settings(home=tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere:4200/api/")
    assert find_server(read_settings(home=tmp_path)) == "http://elsewhere:4200/api"


def test_a_run_works_where_it_was_deployed_from_unless_the_worker_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENAI_PROJECT", raising=False)
    monkeypatch.setenv("GENAI_STORAGE_URI", "/own")
    place, other = tmp_path / "place", tmp_path / "other"
    place.mkdir()
    other.mkdir()
    monkeypatch.setenv("GENAI_HOME", "")  # set, so that it is put back
    monkeypatch.delenv("GENAI_HOME")
    settings = {"GENAI_HOME": "/deployed", "GENAI_STORAGE_URI": "/deployed/store"}
    assert enter_project(str(place), settings) == {"directory": str(place)}
    assert Path.cwd() == place
    assert os.environ["GENAI_HOME"] == "/deployed"
    assert os.environ["GENAI_STORAGE_URI"] == "/own"
    monkeypatch.setenv("GENAI_PROJECT", str(other))
    assert enter_project(str(place)) == {"directory": str(other)}
    monkeypatch.setenv("GENAI_PROJECT", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="Set GENAI_PROJECT"):
        enter_project(str(place))
    monkeypatch.delenv("GENAI_PROJECT")
    with pytest.raises(ConfigError, match="no folder"):
        enter_project("")

"""What a flow run leaves in a real Prefect and a real MLflow; nothing of it can fail the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import temporary_settings
from prefect.testing.utilities import prefect_test_harness

from flows import leaving, voice
from flows.leaving import tell_evidence
from flows.session import SURROUNDINGS, Surroundings, flow_session
from genai_core.config.recipe import Recipe
from genai_core.config.settings import Settings
from genai_core.errors import InterruptedRunError
from tasks.session import StageRow

MODEL = {
    "name": "small",
    "version": "3",
    "alias": "champion",
    "uri": "models:/small/3",
    "gate": {"passed": True, "reasons": ["answer loss fell by 0.2 nats"]},
}


@flow
def small(recipe: Recipe, stop: bool = False) -> None:
    with flow_session(recipe, []) as session:
        assert session.parent_run_id(wait_seconds=120), "MLflow is there, as it is long before a real stage has ended"
        session.on_event({"type": "stage", "title": "pretrain"})
        for done in (3, 6):
            row = {"p": {"done": done, "total": 12, "unit": "step", "loss": 3.0}}
            session.on_event({"type": "journal", "title": "pretrain", "row": row})
        session.add(StageRow("pretrain", "computed", 12.0, None, {"eval_bits_per_byte": 2.0}))
        for who, bits in (("base", 2.0), ("candidate", 1.9)):
            session.add(StageRow(f"evaluate-{who}", "computed", 8.0, None, {"eval/text/bits_per_byte": bits}))
        if stop:
            raise InterruptedRunError("enough")
        session.model = MODEL
        session.add(StageRow("promote", "computed", 0.1, None, {}, reasons=("answer loss fell by 0.2 nats",)))


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180), temporary_settings({"flows.heartbeat_frequency": None}):
        yield


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(voice, "EVERY_SECONDS", -1.0)
    settings = Settings(home=tmp_path)

    def call(**given: Any) -> dict[str, Any]:
        seen: list[str] = []
        token = SURROUNDINGS.set(
            Surroundings(settings=settings, on_session=lambda session: seen.append(session.flow_run_id))
        )
        try:
            small(Recipe.model_validate({"name": "small"}), **given)
        except InterruptedRunError:
            pass
        finally:
            SURROUNDINGS.reset(token)
        with get_client(sync_client=True) as client:
            found = client.request(
                "POST", "/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [seen[0]]}}}
            ).json()
        return {one["key"]: one for one in found if one["key"]}  # Prefect keeps an error as one without a key

    return call


def files_of(home: Path) -> tuple[str, list[str], MlflowClient]:
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("genai")
    (parent,) = client.search_runs([experiment.experiment_id])
    run_id = parent.info.run_id
    names = [file.path for folder in ("", "figures") for file in client.list_artifacts(run_id, folder)]
    assert parent.info.status in {"FINISHED", "KILLED"}
    return run_id, names, client


def test_prefect_has_table_evidence_links_and_a_bar_and_mlflow_the_page(run: Any, tmp_path: Path) -> None:
    artifacts = run()
    run_id, names, client = files_of(tmp_path)
    assert set(artifacts) == {"stages", "gate", "mlflow-run", "model-version", "progress-pretrain"}
    assert artifacts["gate"]["data"].startswith("# `small` version 3 (@champion)")
    assert "answer loss fell by 0.2 nats" in artifacts["gate"]["data"]
    experiment = client.get_run(run_id).info.experiment_id
    assert f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{run_id}" in artifacts["mlflow-run"]["data"]
    assert "/#/models/small/versions/3" in artifacts["model-version"]["data"]
    assert "genai ui" in artifacts["model-version"]["description"]
    assert artifacts["progress-pretrain"]["data"] == 100.0
    assert {"report.html", "figures/text-bits_per_byte.svg"} <= set(names)
    page = Path(client.download_artifacts(run_id, "report.html", str(tmp_path))).read_text()
    assert "<td>pretrain" in page and "completed" in page and "bits per byte of held-out text" in page


def test_who_interrupts_a_run_waits_for_no_page(run: Any, tmp_path: Path) -> None:
    artifacts = run(stop=True)
    _, names, _ = files_of(tmp_path)
    assert set(artifacts) == {"stages", "mlflow-run", "progress-pretrain"}
    assert "report.html" not in names


def test_nothing_of_it_fails_a_run(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no")

    for module, name in (
        *((leaving, name) for name in ("describe", "create_table_artifact", "create_link_artifact")),
        *((voice, name) for name in ("create_progress_artifact", "update_progress_artifact")),
    ):
        monkeypatch.setattr(module, name, refuse)
    artifacts = run()
    _, names, _ = files_of(tmp_path)
    assert set(artifacts) == {"gate"} and "report.html" not in names


def test_generations_and_transitions_are_tables() -> None:
    page = {
        "generations": [
            {
                "number": "1",
                "decision": "refuse",
                "accepted": 211,
                "figures": {
                    "parent": {"text/bits_per_byte": 1.75, "open_book/right": 0.5},
                    "control": {"text/bits_per_byte": 1.76},
                    "candidate": {"text/bits_per_byte": 1.9, "open_book/right": 0.25},
                },
            },
            {"number": "2", "decision": "not there any more", "accepted": None, "figures": {}},
        ],
        "correction": {
            "comparisons": [
                {
                    "moment": "training time",
                    "arm": "after",
                    "baseline": "before",
                    "difference": "+0.050 [+0.010, +0.090]",
                    "lost": 4,
                    "won": 19,
                    "tokens": "12 / 11",
                }
            ]
        },
    }
    generations, correction = tell_evidence(page)
    assert "| 1 | refuse | 211 | 1.75 / 1.76 / 1.9 | 0.5 / - / 0.25 |" in generations and "| 2 |" not in generations
    assert "| training time | after with before | +0.050 [+0.010, +0.090] | 4 | 19 | 12 / 11 |" in correction
    assert tell_evidence({}) == []

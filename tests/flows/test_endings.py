"""How a run ends that was refused, took too long, crashed too often or has nobody to ask; and what it tells of a dataset."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.utilities.callables import parameter_schema

import flows.approval
import flows.session
from flows.approval import Approval, ask
from flows.lifecycle import end_of, lifecycle, report_of
from flows.session import MOST_CRASHES, Deadline, refuse_what_crashes_again
from genai_core.config.base import canonical
from genai_core.config.load import load_recipe
from genai_core.errors import StageFailedError
from genai_core.evaluation.gates import Verdict
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.tracking.card import Evidence
from tasks.approval import say_evidence
from tasks.events import DATASET_PUBLISHED, REFUSED, dataset_event

REF = ArtifactRef(
    kind=ArtifactKind.DATASET, name="minute-corpus", version="ab12", digest="d" * 64, uri="/x", key="k" * 64
)


def session_of(model: dict[str, Any] | None) -> Any:
    return SimpleNamespace(rows=[], model=model)


def test_a_refusal_is_the_name_of_the_state_and_its_reasons_the_message() -> None:
    session = session_of({"name": "m", "gate": {"passed": False, "reasons": ["too few cases", "worse"]}})
    state = end_of(session)
    assert isinstance(state, State)
    assert (state.type, state.name) == (StateType.COMPLETED, REFUSED)
    assert str(state.message).endswith("too few cases; worse")
    assert state.result() == report_of(session)


@pytest.mark.parametrize("model", [None, {"name": "m", "gate": {"passed": True, "reasons": []}}])
def test_any_other_end_is_the_report(model: dict[str, Any] | None) -> None:
    assert end_of(session_of(model)) == {"stages": [], "model": model}


def test_a_deadline_passes_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(flows.session.time, "monotonic", lambda: now[0])
    none, hour = Deadline(0.0), Deadline(1.0)
    now[0] += 3599
    assert not hour.has_passed()
    now[0] += 2
    assert hour.has_passed()
    assert not none.has_passed()
    assert "compute.max_hours=1." in hour.words() + "."


@pytest.mark.parametrize("crashes", [0, MOST_CRASHES, MOST_CRASHES + 1])
def test_what_has_crashed_too_often_is_not_tried_again(crashes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [SimpleNamespace(type=StateType.CRASHED)] * crashes + [SimpleNamespace(type=StateType.RUNNING)] * 9

    class Client:
        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read_flow_run_states(self, _: object) -> list[Any]:
            return states

    run = SimpleNamespace(id="0" * 32, run_count=9)
    monkeypatch.setattr(flows.session, "runtime", SimpleNamespace(flow_run=run, deployment=SimpleNamespace(id="x")))
    monkeypatch.setattr(flows.session, "get_client", lambda **_: Client())
    if crashes > MOST_CRASHES:
        with pytest.raises(StageFailedError, match="crashed 4 times and is not tried again"):
            refuse_what_crashes_again()
    else:
        refuse_what_crashes_again()


def test_nobody_is_asked_unless_the_recipe_says_so_and_a_run_without_a_form_moves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flows.approval, "lay_out_evidence", lambda *_: "evidence")
    assert ask(REF, REF, REF, None, load_recipe("minute")) is None
    asks = load_recipe("minute", ["promotion.approval=true"])
    decision = ask(REF, REF, REF, None, asks)
    assert decision is not None and not decision.promote
    assert "genai deploy" in decision.reason
    monkeypatch.setattr(flows.approval, "lay_out_evidence", lambda *_: "")
    assert ask(REF, REF, REF, None, asks) is None


def test_approval_and_time_are_in_no_identity() -> None:
    plain = load_recipe("minute").promotion
    asks = load_recipe("minute", ["promotion.approval=true", "promotion.approval_hours=2"]).promotion
    assert canonical(plain) == canonical(asks)
    assert Approval.model_fields["decision"].default == "reject"


def test_the_question_shows_reasons_and_the_table() -> None:
    evidence = [
        Evidence(
            figure="bits_per_byte",
            against="base",
            candidate=2.5,
            baseline=3.0,
            difference=-0.5,
            low=-0.6,
            high=-0.4,
            cases=24,
        )
    ]
    said = say_evidence("m@1", "pydocs", Verdict(True, ("it is better",)), evidence)
    assert "- it is better" in said
    assert "| bits_per_byte | 2.5 | 3 | -0.5 [-0.6, -0.4] | 24 |" in said


def test_the_event_of_a_dataset_says_what_made_it_and_carries_its_recipe() -> None:
    event = dataset_event(REF, stage="augment", flow="augmentation", recipe_name="minute", recipe={"name": "minute"})
    assert event["event"] == DATASET_PUBLISHED
    assert event["resource"]["prefect.resource.id"] == "genai.dataset.minute-corpus"
    assert {event["resource"][f"genai.{name}"] for name in ("stage", "flow", "recipe")} == {
        "augment",
        "augmentation",
        "minute",
    }
    assert event["payload"]["recipe"] == {"name": "minute"}
    assert event["payload"]["dataset"]["digest"] == REF.digest


def test_the_form_of_a_flow_begins_with_the_recipe() -> None:
    schema = parameter_schema(lifecycle.fn).model_dump_for_openapi()
    assert [name for name, _ in sorted(schema["properties"].items(), key=lambda item: item[1]["position"])] == [
        "recipe",
        "refresh",
    ]
    assert schema["required"] == ["recipe"]
    assert schema["definitions"]["Recipe"]["properties"]["promotion"]["title"] == "Promotion"

"""What the flow makes of corrections: it learns from them, unless that is shown to cost right answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flows import lifecycle
from genai_core.config.recipe import Recipe
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from tasks import correction
from tasks.session import StageRow


def ref(name: str) -> ArtifactRef:
    return ArtifactRef(kind=ArtifactKind.MODEL, name=name, version="1", digest="0" * 64, uri="file:///nowhere")


def correct(monkeypatch: pytest.MonkeyPatch, accepted: int, low: float, high: float) -> tuple[str, list[StageRow]]:
    rows: list[StageRow] = []
    trained: list[Any] = []

    def tune(*given: Any) -> ArtifactRef:
        trained.extend(given)
        return ref("corrected")

    def measure_correction(*given: Any) -> ArtifactRef:
        rows.append(StageRow("measure-correction", "computed"))
        return ref("report")

    steps = {"sample_corrections": lambda *_: ref("samples"), "tune": tune, "measure_correction": measure_correction}
    session = SimpleNamespace(rows=rows, add=rows.append, on_event=lambda event: None)
    figures = {
        "correction/prompts": 100.0,
        "correction/before/right": 0.25,
        "correction/after/right": 0.25 + (low + high) / 2,
        **{f"correction/training_time/{end}": value for end, value in zip(("low", "high"), (low, high), strict=True)},
        "correction/training_time/mean": (low + high) / 2,
    }
    monkeypatch.setattr(lifecycle, "as_task", lambda task: steps[task.fn.__name__])
    monkeypatch.setattr(lifecycle, "metrics_of", lambda _: {"accepted": accepted})
    monkeypatch.setattr(correction, "metrics_of", lambda _: figures)
    for module in (lifecycle, correction):
        monkeypatch.setattr(module, "current_session", lambda: session)
    recipe = Recipe.model_validate({"name": "r", "correction": {"max_real_share": 0.4}})
    found = lifecycle.correct(ref("model"), ref("corpus"), recipe).name
    if trained:
        assert [trained[0].name, trained[2][0].name, trained[-1]] == ["model", "samples", 0.4]
    return found, rows


@pytest.mark.parametrize(
    ("low", "high", "left", "status"),
    [
        (0.01, 0.09, "corrected", "computed"),
        (-0.06, 0.02, "corrected", "computed"),
        (-0.15, -0.03, "model", "refused"),
    ],
    ids=["better", "no telling", "worse"],
)
def test_a_model_that_is_shown_worse_is_left(
    monkeypatch: pytest.MonkeyPatch, low: float, high: float, left: str, status: str
) -> None:
    found, rows = correct(monkeypatch, 100, low, high)
    assert (found, rows[-1].status) == (left, status)
    if status == "refused":
        assert rows[-1].reasons == (
            "right answers 0.250 before learning from corrections, 0.160 after: -0.090 [-0.150, -0.030], n=100; "
            "the model stays as it was",
        )


def test_without_a_verified_answer_there_is_nothing_to_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    found, rows = correct(monkeypatch, 0, 0.0, 0.0)
    assert found == "model"
    assert [(row.name, row.status) for row in rows] == [("train-corrected", "skipped")]

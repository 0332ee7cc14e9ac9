"""The order of the generations: who is trained from whom, on what, and beside which real-only arm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flows import lifecycle
from genai_core.config.recipe import Recipe
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from tasks.synthesis import GuardVerdict, shown_reasons


def ref(name: str) -> ArtifactRef:
    return ArtifactRef(kind=ArtifactKind.MODEL, name=name, version="1", digest="0" * 64, uri="file:///nowhere")


class Tasks:
    """Tasks that only say what they were called with; the guard's decisions are given."""

    def __init__(self, decisions: str, tail: float) -> None:
        self.trained: dict[str, tuple[str, list[str], int]] = {}
        self.shares: dict[str, tuple[float, float]] = {}
        self.measured: list[dict[str, str | None]] = []
        self.asked: list[tuple[str, list[str]]] = []
        self.stopped: list[str] = []
        self._decisions = iter(decisions)
        self._tail = tail

    def call(self, task: Any) -> Callable[..., ArtifactRef]:
        found: Callable[..., ArtifactRef] = getattr(self, task.fn.__name__)
        return found

    def synthesize(
        self, model: ArtifactRef, corpus: ArtifactRef, earlier: list[ArtifactRef], generation: int, recipe: Recipe
    ) -> ArtifactRef:
        self.asked.append((model.name, [one.name for one in earlier]))
        return ref(f"pairs-{generation}")

    def tune(
        self,
        model: ArtifactRef,
        corpus: ArtifactRef,
        extra: list[ArtifactRef],
        training: Any,
        share: float,
        recipe: Recipe,
        title: str,
        most: float = 1.0,
    ) -> ArtifactRef:
        assert title not in self.trained
        self.shares[title] = (share, most)
        self.trained[title] = (model.name, [one.name for one in extra], training.seed)
        return ref(title)

    def measure_generation(self, *given: Any) -> ArtifactRef:
        candidate, parent, origin, control, _, synthetic, before, generation, _ = given
        names = ("candidate", "parent", "origin", "control", "synthetic", "before")
        refs = (candidate, parent, origin, control, synthetic, before)
        self.measured.append({name: one.name if one else None for name, one in zip(names, refs, strict=True)})
        return ref(f"report-{generation}")

    def verdict(self, report: ArtifactRef) -> GuardVerdict:
        generation = len(self.measured)
        decision = {"p": "pass", "r": "refuse", "s": "stop"}[next(self._decisions)]
        return GuardVerdict.model_validate({"decision": decision, "tail_ratio": self._tail**generation})


def grow(monkeypatch: pytest.MonkeyPatch, decisions: str, tail: float = 1.0) -> tuple[str, Tasks]:
    tasks = Tasks(decisions, tail)
    recipe = Recipe.model_validate(
        {"name": "r", "recursion": {"generations": len(decisions), "min_real_share": 0.4, "max_real_share": 0.8}}
    )
    monkeypatch.setattr(lifecycle, "as_task", tasks.call)
    monkeypatch.setattr(lifecycle, "metrics_of", lambda _: {"accepted": 50})
    monkeypatch.setattr(lifecycle.read_verdict, "fn", tasks.verdict)
    monkeypatch.setattr(lifecycle, "say_stopped", tasks.stopped.append)
    return lifecycle.grow(ref("tuned"), ref("corpus"), recipe).name, tasks


def test_a_generation_is_trained_from_its_parent_beside_an_arm_of_as_many_trainings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last, tasks = grow(monkeypatch, "ppp")
    assert last == "train-g3"
    assert tasks.trained == {
        "train-control-1": ("tuned", [], 1),
        "train-g1": ("tuned", ["pairs-1"], 1),
        "train-control-2": ("train-control-1", [], 2),
        "train-g2": ("train-g1", ["pairs-1", "pairs-2"], 2),
        "train-control-3": ("train-control-2", [], 3),
        "train-g3": ("train-g2", ["pairs-1", "pairs-2", "pairs-3"], 3),
    }
    assert [one["before"] for one in tasks.measured] == [None, "report-1", "report-2"]
    assert {one["origin"] for one in tasks.measured} == {"tuned"}


def test_a_refused_generation_leaves_parent_and_arm_to_the_next_and_its_data_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last, tasks = grow(monkeypatch, "prp")
    assert last == "train-g3"
    assert tasks.trained["train-g2"] == ("train-g1", ["pairs-1", "pairs-2"], 2)
    assert tasks.trained["train-g3"] == ("train-g1", ["pairs-1", "pairs-3"], 2)
    assert tasks.asked == [("tuned", []), ("train-g1", ["pairs-1"]), ("train-g1", ["pairs-1"])]
    assert [one["control"] for one in tasks.measured] == ["train-control-1", "train-control-2", "train-control-2"]
    assert "train-control-3" not in tasks.trained


@pytest.mark.parametrize(
    ("decisions", "last", "why"),
    [
        ("psp", "train-g1", "the guard stopped the loop"),
        ("prrp", "train-g1", "2 generations refused in a row"),
        ("pppp", "train-g3", "tail coverage slides from generation to generation"),
    ],
)
def test_the_loop_ends_and_says_why(monkeypatch: pytest.MonkeyPatch, decisions: str, last: str, why: str) -> None:
    """The last case loses 8 % of the tail in each generation, which the guard lets pass every time."""
    found, tasks = grow(monkeypatch, decisions, tail=0.92)
    assert found == last
    assert tasks.stopped == [why]
    assert len(tasks.measured) == len(decisions) - 1


def test_the_last_generation_is_no_early_end(monkeypatch: pytest.MonkeyPatch) -> None:
    last, tasks = grow(monkeypatch, "ps")
    assert (last, tasks.stopped) == ("train-g1", [])


def test_generations_are_held_between_the_shares_of_real_tokens_and_arms_are_all_real(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, tasks = grow(monkeypatch, "p")
    assert tasks.shares == {"train-control-1": (0.0, 1.0), "train-g1": (0.4, 0.8)}


def test_a_refusal_is_shown_with_its_own_reasons_alone() -> None:
    loss, pairs = "held-out loss: +2.69 %, beyond +2.00 %", "accepted pairs: 41, at least 8 wanted"
    assert shown_reasons({"reasons": [loss, pairs], "failed": ["held-out loss"]}) == (loss,)
    assert shown_reasons({"reasons": [loss, pairs], "failed": []}) == (loss, pairs)

"""A plan is measured once for trainings that are alike in all that it depends on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genai_core.training.plan import KnownPlans, Plan, read_plan, write_plan

FOUND = Plan(precision="bfloat16", threads=2, micro_batch_rows=4, world_size=1)
ASKED = {"seq_len": 256, "tuning": {"kind": "full"}}


def folder(root: Path, name: str, **config: int) -> Path:
    made = root / name
    made.mkdir()
    if config:
        (made / "config.json").write_text(json.dumps(config))
    return made


def test_a_training_alike_gets_the_plan_and_keeps_its_own(tmp_path: Path) -> None:
    known = KnownPlans()
    work = folder(tmp_path, "first")
    write_plan(FOUND, work)
    known.learn(folder(tmp_path, "model", hidden_size=64), ASKED, work)

    second = folder(tmp_path, "second")
    known.lend(folder(tmp_path, "tuned", hidden_size=64), ASKED, second)
    assert read_plan(second) == FOUND

    resumed = folder(tmp_path, "resumed")
    write_plan(Plan("float32", 1, 2, 1), resumed)
    known.lend(tmp_path / "tuned", ASKED, resumed)
    assert read_plan(resumed) == Plan("float32", 1, 2, 1), "a resume goes on as it began"


@pytest.mark.parametrize(
    ("config", "asked"), [({"hidden_size": 128}, ASKED), ({"hidden_size": 64}, {**ASKED, "seq_len": 512})]
)
def test_another_training_is_measured_anew(tmp_path: Path, config: dict[str, int], asked: dict[str, object]) -> None:
    known = KnownPlans()
    work = folder(tmp_path, "first")
    write_plan(FOUND, work)
    known.learn(folder(tmp_path, "model", hidden_size=64), ASKED, work)
    other = folder(tmp_path, "other")
    known.lend(folder(tmp_path, "larger", **config), asked, other)
    assert read_plan(other) is None


def test_a_training_without_a_plan_teaches_nothing(tmp_path: Path) -> None:
    known = KnownPlans()
    model = folder(tmp_path, "model", hidden_size=64)
    known.learn(model, ASKED, folder(tmp_path, "empty"))
    other = folder(tmp_path, "other")
    known.lend(model, ASKED, other)
    assert read_plan(other) is None

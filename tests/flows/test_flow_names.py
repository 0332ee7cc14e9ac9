"""Every flow can be found by its name, planned, and goes no further than it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.plan import plan
from flows.registry import WALKS, find_flow
from genai_core.config.load import load_recipe
from genai_core.config.settings import read_settings

ENDS = {
    "augmentation": "augment",
    "pretraining": "pretrain",
    "finetuning": "finetune",
    "recursion": "measure-g2",
    "correction": "measure-correction",
    "evaluation": "seal-candidate",
    "lifecycle": "seal-candidate",
    "erasure": "erase",
    "comparison": "compose-masked_lm-refill-punctuation-0.3",
}


@pytest.mark.parametrize("name", WALKS)
def test_a_flow_is_planned_as_far_as_it_goes(name: str, tmp_path: Path) -> None:
    flow, walk = find_flow(name)
    assert getattr(flow, "name", "") == name
    recipe = load_recipe("minute", ["data.tokenizer.mask_token=true"])
    rows = plan(recipe, read_settings(home=tmp_path), [], walk=walk)
    assert rows[-1].name == ENDS[name]
    assert all(row.status == "compute" and row.forecast for row in rows)


def test_every_flow_of_the_folder_has_a_name() -> None:
    files = {path.stem for path in (Path(__file__).parents[2] / "flows").glob("*.py") if "@flow(" in path.read_text()}
    assert files == set(WALKS)

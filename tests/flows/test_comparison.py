"""The comparison flow as a plan: two arms that differ in the objective alone, and the table of their reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.comparison import write_with_both
from genai_core.config.load import load_recipe
from genai_core.config.recipe import Recipe
from genai_core.config.settings import read_settings
from genai_core.errors import ConfigError
from tasks import page
from tasks.comparison import arms_of, read_side_by_side, ways_of
from tasks.session import open_session
from tasks.side_by_side import side_by_side

MASKED = "data.tokenizer.mask_token=true"


def recipe_with(*overrides: str) -> Recipe:
    return load_recipe("minute", [MASKED, *overrides])


def test_both_models_are_trained_and_write_in_every_way(tmp_path: Path) -> None:
    recipe = recipe_with().seeded()
    with open_session(recipe.name, recipe.compute, settings=read_settings(home=tmp_path), planning=True) as session:
        composed = write_with_both(recipe)
        assert read_side_by_side(composed) == [], "a plan has no figures"
    assert [row.name for row in session.rows] == [
        "augment",
        "pretrain-causal_lm",
        "compose-causal_lm-continue",
        "pretrain-masked_lm",
        "compose-masked_lm-continue",
        "compose-masked_lm-refill-random-0.3",
        "compose-masked_lm-refill-stop_words-0.3",
        "compose-masked_lm-refill-punctuation-0.3",
    ]


def test_arms_differ_in_the_objective_alone() -> None:
    recipe = recipe_with("seed=3", "pretraining.steps=7").seeded()
    arms = arms_of(recipe)
    causal, masked = arms["causal_lm"], arms["masked_lm"]
    assert causal == recipe, "the causal arm is the recipe's own pre-training, found again if it was computed"
    alike = masked.model_copy(
        update={"pretraining": masked.pretraining.model_copy(update={"objective": causal.pretraining.objective})}
    )
    assert alike == causal != masked
    assert ways_of(causal)["continue"] == ways_of(masked)["continue"]


def test_the_masked_arm_keeps_the_recipes_own_settings() -> None:
    arms = arms_of(recipe_with("pretraining.objective={kind: masked_lm, reads: previous, masking: {rate: 0.4}}"))
    objective: Any = arms["masked_lm"].pretraining.objective
    assert (objective.reads, objective.masking.rate) == ("previous", 0.4)
    assert arms["causal_lm"].pretraining.objective.kind == "causal_lm"


def test_what_cannot_be_compared_is_refused_before_anything_runs() -> None:
    with pytest.raises(
        ConfigError, match=r"(?s)objective\.kind='masked_lm', which the comparison trains.*mask_token=true"
    ):
        arms_of(load_recipe("minute", []))
    encoder = ["base={kind: scratch, architecture: bert, n_layers: 2, d_model: 64, n_heads: 4, max_seq_len: 512}"]
    with pytest.raises(
        ConfigError, match=r"(?s)objective\.kind='causal_lm', which the comparison trains.*is an encoder"
    ):
        arms_of(recipe_with(*encoder, "pretraining.objective={kind: masked_lm}"))


def report(bleu: float, downstream: dict[str, Any]) -> dict[str, Any]:
    score = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    return {
        "figures": {
            "composed": {"quality/bleu": bleu, "quality/bits_per_byte": 2.0, "copy/rate": 0.125},
            "source": {"quality/bits_per_byte": 1.5, "copy/rate": 1.0},
        },
        "intervals": {
            "composed": {"quality/bits_per_byte": {**score, "mean": 2.0}, "copy/rate": score},
            "source": {"quality/bits_per_byte": {**score, "mean": 1.5}},
        },
        "downstream": downstream,
    }


def test_the_table_puts_reports_side_by_side() -> None:
    score = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    given = {"majority": 0.5, "composed": {"accuracy": score, "macro_f1": 0.4321}}
    rows = side_by_side({"a": report(0.25, given), "b": report(0.75, {})})
    assert rows == [
        {"figure": "BLEU-4 with the source", "a": "0.25", "b": "0.75"},
        {"figure": "bits per byte under the 5-gram", "a": "2 [0.25, 0.75]", "b": "2 [0.25, 0.75]"},
        {"figure": "bits per byte under the 5-gram: the sources", "a": "1.5 [0.25, 0.75]", "b": "1.5 [0.25, 0.75]"},
        {"figure": "copied n-grams", "a": "0.5 [0.25, 0.75]", "b": "0.5 [0.25, 0.75]"},
        {"figure": "downstream accuracy, learned from composed texts", "a": "0.5 [0.25, 0.75]", "b": "-"},
        {"figure": "downstream macro f1, learned from composed texts", "a": "0.4321", "b": "-"},
    ]
    assert side_by_side({}) == []


def test_the_page_of_a_run_shows_the_table(tmp_path: Path) -> None:
    recipe = recipe_with()
    rows = side_by_side({"a": report(0.25, {}), "b": report(0.75, {})})
    with open_session(recipe.name, recipe.compute, settings=read_settings(home=tmp_path), planning=True) as session:
        ended = {"recipe": recipe.name, "status": "completed", "seconds": 1.0, "stages": [], "model": None}
        described = page.describe(ended, session.store, session.settings)
    assert described["comparison"] == []
    assert "Composed texts" not in page.render(described)
    shown = page.render({**described, "comparison": rows})
    assert '<th>figure<th class="n">a<th class="n">b' in shown and "2 [0.25, 0.75]" in shown

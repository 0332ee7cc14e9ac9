"""Labels that only exemplars tell are read from them after symbol tuning, with symbols of a pool never trained on."""

from __future__ import annotations

from typing import Any

import pytest
from symbol_world import CLASSES, encode_pair, encode_prompt, jumbled, prompts, share_right, train_model, turned

from genai_core.data.documents import Pair

STEPS, ASKED = 4000, 150
SEEDS = (3, 4, 5)
"""The settings were found on 0, 1 and 2."""

CHANCE = 1 / CLASSES


def asked(seed: int, setting: str) -> list[Pair]:
    """Return held-out prompts of a setting, of all classes."""
    found = [pair for pair in prompts(seed, "symbols", held_out=True) if pair.task == setting]
    return found[:: max(1, len(found) // ASKED)]


def test_a_prompt_is_learned_as_it_is_asked() -> None:
    for pair in prompts(7, "symbols", held_out=False, per_text=1)[:20]:
        ids, mask = encode_pair(pair)
        prompt = encode_prompt(pair)
        assert ids[: len(prompt)] == prompt
        assert mask[len(prompt) :] == [1] * (len(pair.completion) + 1)
        learned = [*pair.check["candidates"], pair.completion]  # of every class the second exemplar, and the answer
        assert sum(mask) == sum(len(label) + 1 for label in learned)
        assert sorted(encode_prompt(jumbled(pair, 0))) == sorted(prompt)
        names = pair.check["candidates"]
        assert turned(pair).completion == names[(names.index(pair.completion) + 1) % CLASSES]


@pytest.mark.worlds
@pytest.mark.parametrize("seed", SEEDS)
def test_the_rule_in_the_exemplars_is_followed_with_symbols_never_trained_on(tmp_path: Any, seed: int) -> None:
    models = {
        labels: train_model(tmp_path / labels, prompts(seed, labels, held_out=False), STEPS, seed)
        for labels in ("symbols", "natural")
    }
    pairs = asked(seed, "symbols")
    tuned = models["symbols"]
    found = {
        "tuned on symbols": share_right(tuned, pairs),
        "its labels turned": share_right(tuned, [turned(pair) for pair in pairs]),
        "its exemplars jumbled": share_right(tuned, [jumbled(pair, seed) for pair in pairs]),
        "tuned on natural labels": share_right(models["natural"], pairs),
        "natural labels, asked with them": share_right(models["natural"], asked(seed, "labels")),
    }
    print(seed, found)
    assert found["tuned on symbols"] > 0.9
    assert found["its labels turned"] > 0.9, "flipped labels are followed"
    assert found["natural labels, asked with them"] > 0.9, "it has learned what it was taught"
    assert found["tuned on natural labels"] < CHANCE + 0.15, "and nothing of exemplars"
    assert found["its exemplars jumbled"] < CHANCE + 0.15, "without a rule in the exemplars there is none"

"""Names that only a document tells are read from unseen documents after RAT, and come from nowhere without it.

Trained on a hundred releases of a library, asked about later ones: the model is the same, the documents have changed.
"""

from __future__ import annotations

from typing import Any

import pytest
from api_world import release, share_right, train_model

from genai_core.augmentation.retrieval_prompts import asked_pairs, oracle_pairs, training_pairs
from genai_core.config.retrieval import Rat
from genai_core.data.documents import Pair

pytestmark = pytest.mark.worlds

LATER = range(1000, 1005)  # 200 questions
SEEDS = (0, 1, 2)
"""Of releases, prompts and weights. The settings were found on the first."""


def learn(tmp_path_factory: pytest.TempPathFactory, seed: int, config: Rat, steps: int) -> Any:
    """Return a model trained on a hundred releases of the seed, documents chosen as the config says."""
    pairs: list[Pair] = []
    for number in range(100 * seed, 100 * (seed + 1)):
        asked, index = release(number)
        pairs += training_pairs(asked, index, config, seed=seed)
    return train_model(tmp_path_factory.mktemp("api"), pairs, steps=steps, seed=seed)


def told(distractors: int) -> list[Pair]:
    """Return the questions about later releases with the right document among so many wrong ones."""
    return [pair for number in LATER for pair in oracle_pairs(*release(number), distractors, seed=0)]


@pytest.fixture(scope="module", params=SEEDS)
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Any:
    """Trained on right documents among wrong ones, on what is found, and on none."""
    return learn(tmp_path_factory, seed, Rat(documents=4, oracle_share=0.6, retrieved_share=0.3), 1600)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Any:
    """Trained on the right document alone, as the published recipe has it."""
    return learn(tmp_path_factory, seed, Rat(documents=1, oracle_share=1.0, retrieved_share=0.0), 800)


@pytest.fixture(scope="module")
def unaware(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Any:
    """Trained on the same questions and answers without documents."""
    return learn(tmp_path_factory, seed, Rat(documents=1, oracle_share=0.0, retrieved_share=0.0), 400)


def test_a_name_is_copied_from_an_unseen_document_and_known_from_nowhere_else(reader: Any, unaware: Any) -> None:
    questions, index = release(1000)
    asked = asked_pairs(questions, index, 1)
    assert share_right(reader, asked) > 0.9
    assert share_right(reader, questions) < 0.05  # without the document nothing tells the name
    assert share_right(unaware, asked) < 0.05  # nor does a document help who was not taught to read it


def test_answers_follow_a_document_that_changes_after_training(reader: Any) -> None:
    questions, index = release(1000)
    renamed, later = release(2000)
    changed = index.updated({pair.doc_id: later.texts[pair.doc_id] for pair in questions[:20]})
    before, after = asked_pairs(questions, index, 1), asked_pairs(questions, changed, 1)
    assert share_right(reader, before) > 0.9
    assert share_right(reader, after[20:]) > 0.9  # these documents stand
    assert share_right(reader, after[:20]) < 0.1  # the old names are gone
    assert share_right(reader, asked_pairs(renamed[:20], changed, 1)) > 0.9  # the new ones are given


def test_wrong_documents_mislead_who_was_never_shown_any(reader: Any, spoilt: Any) -> None:
    curves = {name: [share_right(model, told(k)) for k in range(7)] for name, model in (("r", reader), ("s", spoilt))}
    print(curves)
    assert min(curves["r"][0], curves["s"][0]) > 0.9  # both copy from the only document
    assert min(curves["r"][:4]) > 0.85, "as many as were trained on do not mislead"
    assert all(curves["s"][k] < 1 / (k + 1) + 0.15 for k in (1, 2, 3)), "it copies from any of them"
    assert all(ours > theirs + 0.1 for ours, theirs in zip(curves["r"][1:6], curves["s"][1:6], strict=True))

"""Vectors of texts: those of training, whatever stands beside a text, and only from a model that was trained to embed."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_llama import build_model, sentence

from genai_core.config.objectives import Contrastive
from genai_core.data.collate import collate
from genai_core.data.retrieval_rows import EMBEDDING, RetrievalExample, build_retrieval_rows
from genai_core.errors import ModelError
from genai_core.generation.encoding import Encoder
from genai_core.models.load import save_model
from genai_core.objectives.registry import build_objectives
from genai_core.training.step import run_forward

HOW = {
    "mean": Contrastive(query_instruction="Find the text"),
    "weighted": Contrastive(attention="causal", pooling="weighted_mean", document_instruction="A text"),
}
TEXTS = [sentence(seed, 3 + 5 * (seed % 4)) for seed in range(9)]


@pytest.mark.parametrize("name", HOW)
def test_vectors_are_those_that_training_compares(tokenizer, name) -> None:
    how, model = HOW[name], build_model(tokenizer, torch.float32)
    examples = [RetrievalExample(one, two) for one, two in pairwise(TEXTS)]
    rows, _ = build_retrieval_rows(
        examples,
        tokenizer,
        200,
        query_instruction=how.query_instruction,
        document_instruction=how.document_instruction,
    )
    [weighted] = build_objectives(how)
    batch = collate(rows.take(range(len(rows))))
    with torch.no_grad():
        outputs = run_forward(model, [weighted.objective], batch, "float32")
        trained = weighted.objective.represent(outputs, batch)[:, :2, :32]
    trained = torch.nn.functional.normalize(trained, dim=-1).numpy()
    encoder = Encoder(model, tokenizer, how)
    np.testing.assert_allclose(encoder.queries(TEXTS[:-1]), trained[:, 0], atol=2e-6)
    np.testing.assert_allclose(encoder.documents(TEXTS[1:]), trained[:, 1], atol=2e-6)


@pytest.mark.parametrize("name", HOW)
def test_neighbours_filling_and_order_do_not_move_a_vector(tokenizer, model, name) -> None:
    alone = np.concatenate([Encoder(model, tokenizer, HOW[name]).documents([text]) for text in TEXTS])
    together = Encoder(model, tokenizer, HOW[name]).documents(TEXTS)
    narrow = Encoder(model, tokenizer, HOW[name], batch_tokens=70).documents(TEXTS[::-1])[::-1]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(narrow, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1.0, atol=1e-6)
    assert float(np.abs(alone[1:] @ alone[0]).max()) < 0.999, "different texts have different vectors"


def test_an_empty_text_is_like_nothing_and_a_long_one_is_cut(tokenizer, model) -> None:
    encoder = Encoder(model, tokenizer, HOW["mean"])
    empty, cut, whole = encoder.documents(["  ", f"{sentence(1, 400)} end", sentence(1, 400)])
    assert float(np.abs(empty).max()) == 0.0
    np.testing.assert_allclose(cut, whole, atol=1e-6)
    assert encoder.queries([]).shape == (0, 32)


def test_the_folder_of_a_model_tells_how_it_embeds(tmp_path, tokenizer, model) -> None:
    save_model(model, tokenizer, tmp_path)
    with pytest.raises(ModelError, match=r"was not trained to embed: it has no embedding\.json"):
        Encoder.open(tmp_path)
    (tmp_path / EMBEDDING).write_text(json.dumps({**HOW["weighted"].model_dump(), "row_tokens": 64}))
    expected = Encoder(model, tokenizer, HOW["weighted"], longest=64).queries([*TEXTS, sentence(1, 400)])
    np.testing.assert_allclose(Encoder.open(tmp_path).queries([*TEXTS, sentence(1, 400)]), expected, atol=1e-6)
    whole = Encoder(model, tokenizer, HOW["weighted"]).queries([sentence(1, 400)])
    assert float(np.abs(expected[-1] - whole[0]).max()) > 1e-3, "it is cut where the rows of the training ended"
    expected = expected[: len(TEXTS)]
    assert float(np.abs(expected - Encoder(model, tokenizer, HOW["mean"]).queries(TEXTS)).max()) > 1e-3

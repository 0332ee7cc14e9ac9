"""A text that was read to embed it is not read again: exact under causal attention, another prompt under bidirectional."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_llama import build_model, sentence
from transformers import LlamaForCausalLM

from genai_core.config.objectives import Contrastive
from genai_core.data.templates import end_token_ids, render_prompt
from genai_core.errors import ModelError
from genai_core.generation.encoding import Encoder
from genai_core.generation.remembered import answer_from, read_on, remember
from genai_core.models.backbone import keep_float64

DOCUMENT, QUESTION = sentence(3, 25), sentence(4, 4)


@pytest.fixture
def wide(tokenizer) -> LlamaForCausalLM:
    """Return a model that computes in float64, and whose answers are long enough to compare."""
    model = build_model(tokenizer, torch.float64)
    keep_float64(model)
    return model


@pytest.mark.parametrize("role", ["document", "query"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_the_vector_is_the_encoders(tokenizer, wide, attention, role) -> None:
    encoder = Encoder(wide, tokenizer, Contrastive(attention=attention, query_instruction="Find"))
    expected = (encoder.queries if role == "query" else encoder.documents)([DOCUMENT])[0]
    found = remember(encoder, DOCUMENT, role)
    np.testing.assert_allclose(found.vector, expected, atol=1e-6)
    config = wide.config
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * len(found.ids)
    assert found.n_bytes() == numbers * 8


def test_causal_states_are_those_of_reading_the_whole_prompt(tokenizer, wide) -> None:
    before = remember(Encoder(wide, tokenizer, Contrastive(attention="causal")), DOCUMENT, "document")
    ask = render_prompt(tokenizer, QUESTION)
    with torch.no_grad():
        plain = wide(input_ids=torch.tensor([[*before.ids, *ask]])).logits[0, -1]
    for cached in (True, False):
        torch.testing.assert_close(read_on(wide, before, ask, cached=cached)[0], plain, rtol=0, atol=1e-10)
    ends = end_token_ids(tokenizer)
    answers = [answer_from(wide, before, ask, max_new_tokens=12, ends=ends, cached=cached) for cached in (True, False)]
    with torch.no_grad():
        told = wide.generate(torch.tensor([[*before.ids, *ask]]), max_new_tokens=12, do_sample=False, eos_token_id=ends)
    expected = told[0, len(before.ids) + len(ask) :].tolist()
    assert answers[0] == answers[1] == [token for token in expected if token not in ends]
    assert len(answers[0]) > 3


def test_bidirectional_states_are_another_prompt(tokenizer, wide) -> None:
    before = remember(Encoder(wide, tokenizer, Contrastive()), DOCUMENT, "document")
    ask = render_prompt(tokenizer, QUESTION)
    remembered, again = (read_on(wide, before, ask, cached=cached)[0] for cached in (True, False))
    assert float((remembered - again).abs().max()) > 1e-2


def test_a_text_serves_many_questions(tokenizer, wide) -> None:
    before = remember(Encoder(wide, tokenizer, Contrastive()), DOCUMENT, "document")
    asks = [render_prompt(tokenizer, sentence(seed, 5)) for seed in range(3)]
    first = [read_on(wide, before, ask)[0] for ask in asks]
    again = [read_on(wide, before, ask)[0] for ask in asks]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])


def test_an_empty_text_is_refused(tokenizer, wide) -> None:
    with pytest.raises(ModelError, match="An empty text cannot be remembered"):
        remember(Encoder(wide, tokenizer, Contrastive()), " \n", "document")

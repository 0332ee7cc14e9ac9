"""Pseudo-log-likelihood against closed forms: a uniform model, and a table of conditionals behind a real interface."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parent.parent / "training"))
import itertools

from small_run import VOCAB, small_model

from genai_core.data.masking import Vocabulary
from genai_core.evaluation.pseudo_likelihood import pseudo_logps, pseudo_perplexity
from genai_core.models.backbone import hidden_states

MASK = 1
BEGINS = np.arange(VOCAB) % 3 != 0
VOCABULARY = Vocabulary(MASK, np.isin(np.arange(VOCAB), [0, MASK]), BEGINS)


class Table(nn.Module):
    """A model of a Markov chain over two tokens: for a masked token it says p(token | its two neighbours) exactly."""

    def __init__(self, start: np.ndarray, steps: np.ndarray) -> None:
        super().__init__()
        self.start, self.steps = start, steps
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight.data = torch.eye(3, dtype=torch.float64)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def get_decoder(self):
        return self.decode

    def decode(self, input_ids, position_ids, attention_mask, use_cache):
        states = torch.full((*input_ids.shape, 3), -50.0, dtype=torch.float64)
        for row, text in enumerate(input_ids.tolist()):
            for at, token in enumerate(text):
                if token != 2:
                    continue
                joint = self.start.copy() if at == 0 else self.steps[text[at - 1]].copy()
                if at + 1 < len(text):
                    joint = joint * self.steps[:, text[at + 1]]
                states[row, at, :2] = torch.from_numpy(np.log(joint / joint.sum()))
        return SimpleNamespace(last_hidden_state=states)


def test_a_chain_of_two_tokens_is_its_conditionals() -> None:
    start, steps = np.array([0.3, 0.7]), np.array([[0.9, 0.1], [0.4, 0.6]])
    text = [0, 0, 1, 1, 0]
    vocabulary = Vocabulary(2, np.array([False, False, True]), np.ones(3, dtype=bool))
    found = pseudo_logps(Table(start, steps), text, vocabulary, batch_rows=2)

    def joint(tokens: list[int]) -> float:
        return float(start[tokens[0]] * np.prod([steps[a, b] for a, b in itertools.pairwise(tokens)]))

    for at in range(len(text)):
        other = [token if i != at else 1 - token for i, token in enumerate(text)]
        assert float(found[at]) == pytest.approx(math.log(joint(text) / (joint(text) + joint(other))), abs=1e-9)
    expected = math.exp(-float(found.sum()) / 5)
    assert pseudo_perplexity([found], 5) == pytest.approx(expected)


def test_a_uniform_model_has_as_many_choices_as_there_are_tokens() -> None:
    model = small_model()
    model.get_output_embeddings().weight.data.zero_()
    texts = [[5, 6, 7, 8], [9, 10]]
    found = [pseudo_logps(model, text, VOCABULARY) for text in texts]
    assert pseudo_perplexity(found, 6) == pytest.approx(VOCAB - 1), "all but the mask, which is never predicted"


def test_specials_are_not_scored_and_the_place_before_the_first_does_not_exist() -> None:
    model = small_model()
    found = pseudo_logps(model, [0, 5, 0, 7], VOCABULARY)
    assert (found != 0).tolist() == [False, True, False, True]
    assert (pseudo_logps(model, [4, 5, 7], VOCABULARY, offset=1) != 0).tolist() == [False, True, True]


def test_later_pieces_of_a_word_are_hidden_with_an_earlier_one() -> None:
    """Tokens 4 6 9: 6 and 9 go on with a word (multiples of three), so 4 is scored with all three hidden."""
    model, text = small_model(), [5, 4, 6, 9, 7]
    within = pseudo_logps(model, text, VOCABULARY)
    apart = pseudo_logps(model, text, VOCABULARY, within_words=False)
    assert within[[0, 3, 4]].tolist() == pytest.approx(apart[[0, 3, 4]].tolist()), "last pieces and whole words"
    seen = torch.ones(1, 5, 5, dtype=torch.bool)
    for hidden, expected in (([1, 2, 3], within[1]), ([1], apart[1]), ([2, 3], within[2])):
        shown = torch.tensor([text])
        shown[0, hidden] = MASK
        with torch.no_grad():
            logits = hidden_states(model, shown, torch.arange(5)[None], seen) @ model.get_output_embeddings().weight.T
        logits[..., MASK] = -math.inf
        assert float(logits.log_softmax(-1)[0, hidden[0], text[hidden[0]]]) == pytest.approx(float(expected))


def test_no_scored_token_is_an_error() -> None:
    with pytest.raises(ValueError, match="no token was scored"):
        pseudo_perplexity([], 0)

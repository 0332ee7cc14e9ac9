"""Scores are those of a plain forward pass, every token once, whatever the batch and the windows."""

from __future__ import annotations

import pytest
import torch
from tiny_llama import build_model, sentence

from genai_core.data.templates import render_example
from genai_core.data.tokenizer import document_end_id
from genai_core.errors import ModelError
from genai_core.generation import scoring
from genai_core.generation.scoring import score


def plain_losses(model, ids: list[int]) -> torch.Tensor:
    """Return -log p of ids[1:] from one unpadded pass."""
    with torch.no_grad():
        logps = model(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
    return -logps[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


@pytest.fixture(scope="module")
def exact(tokenizer):
    return build_model(tokenizer, torch.float64)


def documents(count: int) -> list[dict[str, str]]:
    return [{"row_id": f"d{i}", "text": sentence(i, 1 + (i * 11) % 60)} for i in range(count)]


def test_documents_equal_a_plain_forward_pass(exact, tokenizer):
    rows = documents(12)
    for row, result in zip(rows, score(exact, tokenizer, rows), strict=True):
        ids = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
        expected = plain_losses(exact, [document_end_id(tokenizer), *ids]).sum()
        assert result["row_id"] == row["row_id"]
        assert result["nll"] == pytest.approx(float(expected), abs=1e-10)
        assert (result["n_tokens"], result["n_bytes"]) == (len(ids), len(row["text"].encode()))


def test_answers_equal_a_plain_forward_pass_over_the_loss_mask(exact, tokenizer):
    rows = [
        {"row_id": f"a{i}", "prompt": sentence(i, 1 + (i * 5) % 30), "completion": sentence(100 + i, 1 + i % 7)}
        for i in range(12)
    ]
    for row, result in zip(rows, score(exact, tokenizer, rows), strict=True):
        ids, mask = render_example(tokenizer, row["prompt"], row["completion"])
        losses = plain_losses(exact, ids)[torch.tensor(mask[1:], dtype=torch.bool)]
        assert result == {
            "row_id": row["row_id"],
            "nll": pytest.approx(float(losses.sum()), abs=1e-10),
            "n_tokens": sum(mask),
        }


def test_scores_do_not_depend_on_batch_order_or_padding(exact, tokenizer, monkeypatch):
    rows = [*documents(10), {"row_id": "a", "prompt": sentence(3, 9), "completion": sentence(4, 5)}]
    together = {row["row_id"]: row for row in score(exact, tokenizer, rows)}
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 1)
    for row in score(exact, tokenizer, rows[::-1]):
        assert row["nll"] == pytest.approx(together[row["row_id"]]["nll"], abs=1e-10)


@pytest.mark.parametrize("window", [2, 7, 16, 64])
def test_windows_score_each_token_once_with_at_least_half_a_window_before_it(exact, tokenizer, monkeypatch, window):
    monkeypatch.setattr(scoring, "MAX_WINDOW", window)
    ids = [document_end_id(tokenizer), *tokenizer(sentence(5, 50), add_special_tokens=False)["input_ids"]]
    pieces = scoring.cut_windows(0, ids, window)
    place, expected = 1, 0.0
    for piece in pieces:
        offset = place - piece.start  # where the window begins in the document
        assert piece.ids == ids[offset : offset + len(piece.ids)] and len(piece.ids) <= window
        assert offset == 0 or piece.start >= window // 2
        expected += float(plain_losses(exact, piece.ids)[piece.start - 1 :].sum())
        place += len(piece.ids) - piece.start
    assert place == len(ids)
    result = score(exact, tokenizer, [{"row_id": "d", "text": sentence(5, 50)}])[0]
    assert result["n_tokens"] == len(ids) - 1
    assert result["nll"] == pytest.approx(expected, abs=1e-10)


def test_an_empty_document_has_no_loss_and_a_long_answer_is_refused(exact, tokenizer):
    assert score(exact, tokenizer, [{"row_id": "e", "text": ""}]) == [
        {"row_id": "e", "nll": 0.0, "n_tokens": 0, "n_bytes": 0}
    ]
    with pytest.raises(ModelError, match="Row 'long': prompt and answer have"):
        score(exact, tokenizer, [{"row_id": "long", "prompt": sentence(1, 600), "completion": "x"}])

"""What a worker runs to measure a model while a concept is erased in it: losses of texts, CrowS-Pairs, GAP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from genai_core.data.tokenizer import encode_documents
from genai_core.errors import ModelError
from genai_core.evaluation.benchmarks.crows_pairs import pair_case, shared_places
from genai_core.evaluation.benchmarks.gap import gap_case, replaced
from genai_core.evaluation.benchmarks.masked_sentences import hidden_logps
from genai_core.generation.prompts import longest_row
from genai_core.generation.scoring import score
from genai_core.models.families import Family
from genai_core.representations.scrubbing import scrubbed
from genai_core.representations.worker import erasers_from_json, load

Measure = Callable[[Any, Any, Family, list[Any]], list[Any]]


def losses_shard(arguments: dict[str, Any], rows: list[Any]) -> list[Any]:
    """Return the loss of every text, in row order, while erasing: {"row_id", "nll", "n_tokens", "n_bytes"}, nll in nats.

    Of a masked model it is the pseudo-log-likelihood of each token given all others, of the beginning that it holds.

    Args:
        arguments: "model": a folder; "erasers": as `erasers_to_json`; "threads": 0 = as it is.
        rows: {"row_id", "text"}.
    """
    return _while_erasing(arguments, rows, _losses)


def crows_pairs_shard(arguments: dict[str, Any], rows: list[Any]) -> list[Any]:
    """Return a case of every CrowS-Pairs row, while erasing; see `losses_shard` and `benchmarks.crows_pairs`."""
    return _while_erasing(arguments, rows, _crows_pairs)


def gap_shard(arguments: dict[str, Any], rows: list[Any]) -> list[Any]:
    """Return a case of every GAP row, while erasing; see `losses_shard` and `benchmarks.gap`."""
    return _while_erasing(arguments, rows, _gap)


def _while_erasing(arguments: dict[str, Any], rows: list[Any], measure: Measure) -> list[Any]:
    model, tokenizer, family = load(arguments)
    if family == "encoder":
        raise ModelError(
            "The model has no head, so it finds no text likely or unlikely. Give one with a language model's."
        )
    with scrubbed(model, erasers_from_json(arguments["erasers"])):
        return measure(model, tokenizer, family, rows)


def _losses(model: Any, tokenizer: Any, family: Family, rows: list[Any]) -> list[Any]:
    if family == "causal":
        return score(model, tokenizer, rows)
    found = []
    for row in rows:
        ids, places = _marked(model, tokenizer, row["text"])
        nll = -float(hidden_logps(model, ids, places, tokenizer.mask_token_id).sum())
        found.append(
            {"row_id": row["row_id"], "nll": nll, "n_tokens": len(places), "n_bytes": len(row["text"].encode())}
        )
    return found


def _crows_pairs(model: Any, tokenizer: Any, family: Family, rows: list[Any]) -> list[Any]:
    if family == "causal":
        likely = _log_likelihoods(model, tokenizer, [row[side] for row in rows for side in ("sent_more", "sent_less")])
        return [pair_case(row, *likely[2 * at : 2 * at + 2]) for at, row in enumerate(rows)]
    found = []
    for row in rows:
        more, less = (_marked(model, tokenizer, row[side])[0] for side in ("sent_more", "sent_less"))
        sides = zip((more, less), shared_places(more[1:-1], less[1:-1]), strict=True)
        sums = [
            float(hidden_logps(model, ids, [place + 1 for place in places], tokenizer.mask_token_id).sum())
            for ids, places in sides
        ]
        found.append(pair_case(row, *sums))
    return found


def _gap(model: Any, tokenizer: Any, family: Family, rows: list[Any]) -> list[Any]:
    parts = [replaced(row, name) for row in rows for name in ("A", "B")]
    if family == "causal":
        # what follows the name, given all before it: the whole less its beginning
        texts = [text for before, name, behind in parts for text in (before + name + behind, before + name)]
        likely = _log_likelihoods(model, tokenizer, texts)
        scores = [likely[at] - likely[at + 1] for at in range(0, len(likely), 2)]
    else:
        scores = []
        for before, name, behind in parts:
            left, middle, right = encode_documents(tokenizer, [before, name, behind])
            ids = [tokenizer.cls_token_id, *left, *middle, *right, tokenizer.sep_token_id]
            first = 1 + len(left)
            places = list(range(first, first + len(middle)))
            scores.append(float(hidden_logps(model, ids, places, tokenizer.mask_token_id).mean()))
    return [gap_case(row, *scores[2 * at : 2 * at + 2]) for at, row in enumerate(rows)]


def _log_likelihoods(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[float]:
    scored = score(model, tokenizer, [{"row_id": str(at), "text": text} for at, text in enumerate(texts)])
    return [-row["nll"] for row in scored]


def _marked(model: Any, tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Return the ids of a text between an encoder's marks, as much as it holds, and the places that are the text's own."""
    most = (longest_row(model.config) or 512) - 2
    [ids] = encode_documents(tokenizer, [text])
    kept = ids[:most]
    return [tokenizer.cls_token_id, *kept, tokenizer.sep_token_id], list(range(1, len(kept) + 1))

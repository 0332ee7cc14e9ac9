"""What a worker runs to compose texts of given length from documents: with a causal model, or with one that fills in masks.

    continue   a causal model goes on token by token; a masked one gets as many masks behind the same beginning
    refill     a share of a document's tokens is masked, by strategy, and filled in, the surest first

Three ways to write with a masked model: mask-predict (Ghazvininejad et al. 2019, arXiv 1904.09324), Gibbs sampling (Wang and
Cho 2019, arXiv 1902.04094), template refill as in the comparison of masked and causal models (arXiv 2405.12630). No model
writes special tokens in the middle of a text: of a masked one they are not asked, a causal one ends with them.

A row is a document's mark and T tokens; `given` of them (continue) are shown to both kinds of model alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from genai_core.config.comparison import Continue, Refill, Strategy, Way
from genai_core.config.generation import SamplingConfig, UnmaskingConfig
from genai_core.data.masking import Vocabulary
from genai_core.data.templates import end_token_ids
from genai_core.data.tokenizer import document_end_id, document_start_id
from genai_core.generation.engine import GenerationEngine
from genai_core.generation.masked_model import masked_predictor
from genai_core.generation.types import Request
from genai_core.generation.unmasking import Predict, mask_predict, resample, unmask
from genai_core.representations.worker import load

STOP_WORDS = frozenset(
    """
    a an the this that these those some any each every no all both either neither such another other same
    i me my mine we us our ours you your yours he him his she her hers it its they them their theirs
    myself yourself himself herself itself ourselves themselves who whom whose which what
    and or but nor so yet if then than because while although though unless until whether as
    of in on at by to from with without within into onto over under above below between among through during
    before after about against along around across behind beyond for off out up down upon per via
    is am are was were be been being has have had having do does did doing done
    will would shall should can could may might must not
    there here when where why how too very just only also again once more most much many few
    """.split()  # noqa: SIM905 (a list of quoted words is unreadable)
)
"""English function words: what holds a sentence together and says nothing of its subject ("name" or "system" are none)."""

WAY: TypeAdapter[Continue | Refill] = TypeAdapter(Way)


@dataclass(frozen=True, slots=True)
class Composed:
    """One text: its tokens, without the document's mark, and which of them the model wrote."""

    ids: list[int]
    written: list[bool]


def compose_shard(arguments: dict[str, Any], rows: list[Any]) -> list[Any]:
    """Return a text for each document, in row order: {"row_id", "ids", "written"}, written 0 or 1 a token.

    Args:
        arguments: "model": a folder; "reads": "left", "own" or "previous"; "mask_token"; "way" and "sampling" as JSON;
            "threads": 0 = as it is.
        rows: {"row_id", "ids", "given"}: the tokens of a document without its mark, and how many `continue` shows.
    """
    model, tokenizer, _ = load(arguments)
    way, sampling = WAY.validate_python(arguments["way"]), SamplingConfig.model_validate(arguments["sampling"])
    if arguments["reads"] == "left":
        texts = continue_causally(model, tokenizer, rows, sampling)
    else:
        offset = 0 if arguments["reads"] == "own" else 1
        texts = compose_masked(model, tokenizer, rows, way, sampling, arguments["mask_token"], offset)
    return [
        {"row_id": row["row_id"], "ids": text.ids, "written": [int(one) for one in text.written]}
        for row, text in zip(rows, texts, strict=True)
    ]


def continue_causally(
    model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], sampling: SamplingConfig
) -> list[Composed]:
    """Return each document's beginning and what the model writes behind it: up to as many tokens, fewer where it ends."""
    ends = {*end_token_ids(tokenizer), document_end_id(tokenizer)}
    wanted = [len(row["ids"]) - row["given"] for row in rows]
    longest = sampling.model_copy(update={"max_new_tokens": max(wanted)})
    requests = [
        Request(row_id=row["row_id"], prompt=tokenizer.decode(row["ids"][: row["given"]]), raw=True) for row in rows
    ]
    found = []
    for row, count, answer in zip(
        rows, wanted, GenerationEngine(model, tokenizer).generate(requests, longest), strict=True
    ):
        ids = list(answer.token_ids)[:count]
        new = ids[: next((at for at, token in enumerate(ids) if token in ends), len(ids))]
        found.append(Composed(row["ids"][: row["given"]] + new, [False] * row["given"] + [True] * len(new)))
    return found


def compose_masked(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    way: Continue | Refill,
    sampling: SamplingConfig,
    mask_token: str = "",
    offset: int = 0,
) -> list[Composed]:
    """Return each document with its masked tokens filled in; the others are unchanged, so the length is the document's.

    Args:
        model: trained with a masked objective, in eval mode.
        tokenizer: its tokenizer.
        rows: see `compose_shard`.
        way: which tokens are masked and how they are filled in.
        sampling: temperature, cuts and seed.
        mask_token: entry that stands for a mask; "" = the tokenizer's own.
        offset: where the model predicts: 0 at a token's own place, 1 at the one before it.
    """
    vocabulary = Vocabulary.of(tokenizer, mask_token)
    lengths = torch.tensor([1 + len(row["ids"]) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), document_start_id(tokenizer))
    free = torch.zeros(ids.shape, dtype=torch.bool)
    for at, row in enumerate(rows):
        own = np.array(row["ids"])
        match way:
            case Continue():
                masked = np.arange(len(own)) >= row["given"]
            case Refill():
                masked = choose_places(own, vocabulary, tokenizer, way, f"{sampling.seed}/{row['row_id']}")
        ids[at, 1 : 1 + len(own)] = torch.from_numpy(own)
        free[at, 1 : 1 + len(own)] = torch.from_numpy(masked)
    ids, free = ids.to(model.device), free.to(model.device)
    predict = _without_specials(masked_predictor(model, vocabulary.mask_id, lengths, offset=offset), vocabulary)
    filled = fill(predict, ids, free, vocabulary.mask_id, way, sampling, [row["row_id"] for row in rows])
    return [
        Composed(filled[at, 1:length].tolist(), free[at, 1:length].tolist())
        for at, length in enumerate(lengths.tolist())
    ]


def fill(
    predict: Predict,
    ids: Tensor,
    free: Tensor,
    mask_id: int,
    way: Continue | Refill,
    sampling: SamplingConfig,
    row_ids: Sequence[str],
) -> Tensor:
    """Return the rows, (B, T), with what is `free` written in the way that is asked for."""
    drawing = UnmaskingConfig(
        temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, seed=sampling.seed
    )
    masked = ids.masked_fill(free, mask_id)
    if isinstance(way, Refill):
        return unmask(predict, masked, mask_id, drawing, row_ids, free).ids
    if way.filling == "mask_predict":
        return mask_predict(predict, masked, mask_id, way.passes, drawing, row_ids, free).ids
    first = mask_predict(predict, masked, mask_id, 1, drawing, row_ids, free).ids
    in_order = drawing.model_copy(update={"order": "random"})
    return resample(predict, first, free, mask_id, way.passes, in_order, [f"{name}/gibbs" for name in row_ids]).ids


def choose_places(ids: np.ndarray, vocabulary: Vocabulary, tokenizer: Any, way: Refill, key: str) -> np.ndarray:
    """Return which tokens of a document are masked, (T,) bool: rate * T of those that the strategy names, all if fewer.

    Args:
        ids: (T,) without the document's mark.
        vocabulary: what is special and where words begin.
        tokenizer: spells the tokens.
        way: rate and strategy.
        key: decides the choice.
    """
    among = np.flatnonzero(_candidates(ids, vocabulary, tokenizer, way.strategy))
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    count = min(len(among), round(way.rate * len(ids)))
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[np.random.default_rng(seed).choice(among, size=count, replace=False)] = True
    return chosen


def _candidates(ids: np.ndarray, vocabulary: Vocabulary, tokenizer: Any, strategy: Strategy) -> np.ndarray:
    ordinary: np.ndarray = ~vocabulary.is_special[ids]
    if strategy == "random":
        return ordinary
    # a sign ends a word too: in "(write" the entry "write" has no mark of a beginning
    after_sign = [False, *(not tokenizer.decode([token])[-1:].isalnum() for token in ids[:-1].tolist())]
    begins = vocabulary.begins_word[ids] | ~ordinary | np.array(after_sign)
    numbers = np.cumsum(begins)  # (T,) of the word that a token is in
    words = {number: tokenizer.decode(ids[numbers == number].tolist()).strip() for number in np.unique(numbers)}
    if strategy == "punctuation":
        wanted = {number for number, word in words.items() if word and not any(c.isalnum() for c in word)}
    else:
        wanted = {number for number, word in words.items() if word.lower() in STOP_WORDS}
    found: np.ndarray = ordinary & np.isin(numbers, sorted(wanted))
    return found


def _without_specials(predict: Predict, vocabulary: Vocabulary) -> Predict:
    special = torch.from_numpy(vocabulary.is_special)

    def ordinary(ids: Tensor, asked: Tensor) -> Tensor:
        logits = predict(ids, asked)
        width = min(logits.shape[-1], len(special))  # a model may have more embeddings than the tokenizer entries
        never = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
        never[:width] = special[:width].to(logits.device)
        return logits.masked_fill(never, -torch.inf)

    return ordinary

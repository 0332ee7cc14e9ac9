"""InfoNCE between a query and its document, among all documents of the step: the embedding half of GRIT.

    e     = sum_t m_t h_t / sum_t m_t              over the marked tokens of a segment; weighted_mean: m_t = t there
    s_ic  = cos(q_i, d_c) / temperature
    loss  = sum_i  -log( exp(s_i,i0) / sum_{c in C_i} exp(s_ic) )

Muennighoff et al. 2024 (GRIT, arXiv 2402.09906, equation 1; the released code divides by the temperature, as here); van den
Oord et al. 2018 (arXiv 1807.03748, equation 4). A row's segments are one example: 0 the query, 1 its document (i0 above), then
hard negatives, if any; the tokens with a label are pooled, those without (instruction and marker) are attended to only.

This objective couples the rows of a step: C_i are the documents of all its rows, whatever the micro-batches and ranks. So it is
two pure functions, `represent` and `couple`, and the engine runs them with cached gradients (arXiv 2101.06983). Of C_i are left
out the documents of another dataset (`source`: what tells datasets apart is too easy a lesson), and those that are right answers
themselves: a document that a row of the step has as the positive of an equal query. Texts are equal if their tokens are; so the
representation of a segment carries, behind its vector, a 64-bit hash of its tokens in four exact pieces.

Choices: query to document only, as GritLM has it; pooled and compared in float32 or wider, because a bfloat16 cosine divided by
0.02 keeps one digit. Gradients through all ranks are exact; GritLM's gather has them for its own rank only, which divides the
weight of this term by the number of ranks (8 in its 7B run): to follow that recipe, weigh it by 1/8.
Shapes: B rows of a micro-batch, M of the step, T tokens, D width, G documents a row (1 + hard negatives).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from genai_core.objectives.base import IGNORE_INDEX, Batch, Forward, LossTerms, Mean, Term

Pooling = Literal["mean", "weighted_mean"]
Attention = Literal["bidirectional", "causal"]

_PIECES = 4  # of 16 bits, which float32 holds exactly
_MARKS = 2 + _PIECES  # behind a segment's vector: is there something to pool, which dataset, hash
_MIX_A, _MIX_B = -4658895280553007687, -7723592293110705685  # of splitmix64 (Steele et al. 2014), as signed integers


def pool_segments(hidden: Tensor, segment_ids: Tensor, pooled: Tensor, n_segments: int, pooling: Pooling) -> Tensor:
    """Return the mean hidden state over the marked tokens of each segment, (B, n, D), at least float32; 0 where none is.

    Args:
        hidden: (B, T, D).
        segment_ids: (B, T), from 0 in every row.
        pooled: (B, T) bool, the tokens that count.
        n_segments: n, of each row; later segments are left out.
        pooling: 'mean'; 'weighted_mean' counts the first marked token once, the second twice, ... (for causal attention, where
            later tokens have seen more).
    """
    wide = hidden if hidden.dtype == torch.float64 else hidden.float()
    numbers = torch.arange(n_segments, device=hidden.device)[:, None]
    weights = ((segment_ids[:, None] == numbers) & pooled[:, None]).to(wide.dtype)  # (B, n, T)
    if pooling == "weighted_mean":
        weights = weights * weights.cumsum(dim=-1)
    # autocast would make the product in bfloat16
    with torch.autocast(hidden.device.type, enabled=False):
        return weights @ wide / weights.sum(dim=-1, keepdim=True).clamp_min(1.0)


def hash_segments(input_ids: Tensor, position_ids: Tensor, segment_ids: Tensor, n_segments: int) -> Tensor:
    """Return a 64-bit hash of the tokens of each segment, (B, n) int64: the sum of a hash of every (token, position)."""
    mixed = _mix(_mix(input_ids + 1) + position_ids)  # (B, T), integers wrap around
    keep = segment_ids < n_segments
    sums = torch.zeros(len(input_ids), n_segments, dtype=torch.int64, device=input_ids.device)
    return sums.scatter_add(1, segment_ids.clamp_max(n_segments - 1), mixed * keep)


def known_positives(queries: Tensor, documents: Tensor) -> Tensor:
    """Return which candidates are the positive of an equal query, (M, M * G) bool, each query's own among them.

    Args:
        queries: (M,) integers that are equal where the texts are.
        documents: (M, G) integers; the first of each row is its query's positive.
    """
    same_query = queries[:, None] == queries[None]  # (M, M)
    same_document = documents[:, :1] == documents.flatten()[None]  # (M, M * G)
    return same_query.float() @ same_document.float() > 0


def contrastive_scores(queries: Tensor, documents: Tensor, *, temperature: float, excluded: Tensor | None) -> Tensor:
    """Return the scores of all candidates for each query, (M, M * G); -inf where one is excluded.

    Args:
        queries: (M, D).
        documents: (M, G, D); the first of each row is its query's own.
        temperature: similarities are divided by it; smaller looks harder at the nearest negatives.
        excluded: (M, M * G) bool, the candidates that do not count for a query; never its own. None = all count.
    """
    scores = F.normalize(queries, dim=-1) @ F.normalize(documents.flatten(0, 1), dim=-1).T / temperature
    return scores if excluded is None else scores.masked_fill(excluded, -torch.inf)


def contrastive_loss(scores: Tensor) -> Tensor:
    """Return the loss of each query, (M,) in nats; ln(M G) where all scores are equal.

    Args:
        scores: (M, M * G) of the candidates; query i's own document is in column i * G.
    """
    return -scores.log_softmax(dim=-1).gather(1, _own(scores)[:, None]).squeeze(1)


class ContrastiveObjective:
    """`contrastive`, in nats per query; beside it how often a query's own document was the nearest."""

    def __init__(
        self,
        temperature: float,
        negatives: int = 0,
        attention: Attention = "bidirectional",
        pooling: Pooling = "mean",
    ) -> None:
        self._temperature = temperature
        self._segments = 2 + negatives
        self._attention: Attention = attention
        self._pooling: Pooling = pooling

    def forwards(self) -> Sequence[Forward]:
        """Return one pass that gives hidden states."""
        return (Forward(outputs=frozenset({"hidden"}), attention=self._attention),)

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the number of rows that have a query and its document."""
        return {"contrastive": self._present(batch)[:, :2].all(dim=1).sum()}

    def represent(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the vectors of the segments, and what they are told apart by, (B, 1 + G, D + 6)."""
        pooled = batch["labels"] != IGNORE_INDEX
        vectors = pool_segments(outputs["hidden"], batch["segment_ids"], pooled, self._segments, self._pooling)
        hashes = hash_segments(batch["input_ids"], batch["position_ids"], batch["segment_ids"], self._segments)
        source = batch["source"] if "source" in batch else torch.zeros_like(hashes[:, 0])
        marks = [
            self._present(batch),
            source[:, None].expand_as(hashes),
            *((hashes >> 16 * piece) & 0xFFFF for piece in range(_PIECES)),
        ]
        return torch.cat([vectors, *(mark[..., None].to(vectors.dtype) for mark in marks)], dim=-1)

    def couple(self, representations: Tensor) -> LossTerms:
        """Return the summed loss over all rows that have a query and its document."""
        there = representations[:, :2, -_MARKS].detach().bool().all(dim=1)
        chosen = representations[there]  # (M, 1 + G, D + 6)
        vectors, marks = chosen[..., :-_MARKS], chosen[..., -_MARKS:].detach().long()
        queries, documents = vectors[:, 0], vectors[:, 1:]
        present, source, texts = marks[:, 1:, 0] > 0, marks[:, 0, 1], _number(marks[..., 2:])
        foreign = source[:, None] != source.repeat_interleave(documents.shape[1])[None]  # (M, M * G)
        right = known_positives(texts[:, 0], texts[:, 1:]) & ~foreign
        own = _own(right)
        right[torch.arange(len(own), device=own.device), own] = False
        excluded = foreign | right | ~present.flatten()[None]
        scores = contrastive_scores(queries, documents, temperature=self._temperature, excluded=excluded)
        rows = torch.tensor(len(scores), device=scores.device)
        found = scores.detach().argsort(dim=-1, descending=True)[:, :1]  # argmax refuses a step without rows
        hits = (found == own[:, None]).sum()
        return LossTerms(
            {"contrastive": Term(contrastive_loss(scores).sum(), rows)},
            {"contrastive_accuracy": Mean(hits, rows), "known_positives_left_out": Mean(right.sum(), rows)},
        )

    def _present(self, batch: Batch) -> Tensor:
        """Return which segments have something to pool, (B, 1 + G) bool."""
        numbers = torch.arange(self._segments, device=batch["labels"].device)[:, None]
        pooled = batch["labels"] != IGNORE_INDEX
        return ((batch["segment_ids"][:, None] == numbers) & pooled[:, None]).any(dim=-1)


def _own(scores: Tensor) -> Tensor:
    """Return the column of each query's own document, (M,), of scores (M, M * G)."""
    rows, columns = scores.shape
    return torch.arange(rows, device=scores.device) * (columns // max(1, rows))


def _number(hashes: Tensor) -> Tensor:
    """Return the same small integer wherever the pieces of a hash are the same, (M, n), of (M, n, pieces)."""
    if not len(hashes):
        return hashes[..., 0]
    numbers: Tensor = torch.unique(hashes.flatten(0, 1), dim=0, return_inverse=True)[1]
    return numbers.reshape(hashes.shape[:2])


def _mix(values: Tensor) -> Tensor:
    """Return a bijection of 64-bit integers that moves every bit (the finaliser of splitmix64)."""
    values = (values ^ (values >> 30 & 0x3FFFFFFFF)) * _MIX_A
    values = (values ^ (values >> 27 & 0x1FFFFFFFFF)) * _MIX_B
    return values ^ (values >> 31 & 0x1FFFFFFFF)

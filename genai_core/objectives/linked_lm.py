"""Masked language modelling over pairs of texts, and how the second came to stand behind the first: LinkBERT.

    loss = sum_{b,t hidden} -log p(x[b,t] | corrupted pair b)  /  hidden tokens
         + weight * sum_b   -log p(relation b | h[b,0])        /  pairs

Yasunaga et al. 2022, arXiv 2203.15827, equations 1 and 2: a mean over masked tokens and a mean over pairs, added as BERT adds
its two losses. The relation is contiguous, random or linked (data/linked_rows): with the first two alone this is BERT's
next-sentence prediction. Both are read off one pass through the corrupted pair.

The rows bring the relation where the opening token belongs; here it is put back. The second text's tokens are of type 1 for
encoders that know types; its closing token too, the first text's is not, as in BERT.

Shapes: B rows, C = 3 relations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from genai_core.data.masking import Masker
from genai_core.errors import DataError
from genai_core.objectives.base import Batch, Forward, LossTerms, Mean, Term
from genai_core.objectives.masked_lm import MaskedLmObjective

CLASSES = 3


def relation_loss(logits: Tensor, relations: Tensor) -> Tensor:
    """Return the summed cross-entropy of the pairs' relations, (), in nats; ln C a pair where all logits are equal.

    Args:
        logits: (B, C).
        relations: (B,) from 0 to C - 1.
    """
    return F.cross_entropy(logits, relations, reduction="sum")


def second_text(ids: Tensor, end_id: int) -> Tensor:
    """Return 1 for the tokens of each pair's second text, its closing token included, and for padding; else 0. (B, T).

    Args:
        ids: (B, T): opening token, first text, `end_id`, second text, `end_id`. The opening token may be `end_id` too.
        end_id: closes a text.
    """
    closes = ids == end_id
    closes[:, 0] = False
    return ((closes.cumsum(dim=1) - closes.long()) > 0).long()


class LinkedLmObjective(MaskedLmObjective):
    """`masked_lm` per hidden token and `relation` per pair; the measure on held-out text is the former."""

    def __init__(
        self, masker: Masker, offset: Literal[0, 1], *, start_id: int, end_id: int, relation_weight: float
    ) -> None:
        super().__init__(masker, offset)
        self._start_id, self._end_id = start_id, end_id
        self._relation_weight = relation_weight

    def forwards(self) -> Sequence[Forward]:
        """Return one bidirectional pass that gives log-probabilities and the logits of the relation."""
        outputs: frozenset[Literal["hidden", "logps", "row_logits"]] = frozenset({"logps", "row_logits"})
        return (Forward(outputs=outputs, attention="bidirectional", offset=self._offset),)

    def corrupt(self, batch: Batch, progress: float) -> Batch:
        """Return the pairs with tokens hidden, their opening tokens put back; `relation` (B,) and `token_types` (B, T) beside.

        Raises:
            DataError: the rows are no pairs.
        """
        relations, ids = batch["input_ids"][:, 0], batch["input_ids"].clone()
        if len(relations) and int(relations.max()) >= CLASSES:
            raise DataError(
                f"Rows of pairs begin with the number of their relation, 0 to {CLASSES - 1}; one begins with "
                f"{int(relations.max())}. objective.kind='linked_lm' trains in pretraining, which makes the pairs."
            )
        ids[:, 0] = self._start_id
        shown = super().corrupt({**batch, "input_ids": ids}, progress)
        return {**shown, "relation": relations, "token_types": second_text(ids, self._end_id)}

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the number of hidden tokens and of pairs."""
        return {**super().counts(batch), "relation": torch.tensor(len(batch["relation"]))}

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> LossTerms:
        """Return both terms, the second times its weight, and how often the relation is found."""
        relations, logits = batch["relation"], outputs["row_logits"]
        pairs = torch.tensor(len(relations), device=logits.device)
        right = (logits.detach().argmax(dim=-1) == relations).sum()
        related = Term(relation_loss(logits, relations) * self._relation_weight, pairs)
        return LossTerms(
            {**super().loss(outputs, batch).terms, "relation": related}, {"relation_accuracy": Mean(right, pairs)}
        )

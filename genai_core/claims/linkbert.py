"""LinkBERT: what a model learns from pairs of linked texts, beside a model that went on without them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genai_core.augmentation.link_graph import segments_of
from genai_core.claims.arms import SEQ_LEN, continue_arm, pretrain_arm, row_losses, small_corpus
from genai_core.claims.base import Cases, Claim, Comparison, Setting
from genai_core.claims.combination import MEASURED, SPANS, STEPS
from genai_core.config.objectives import LinkedLm, MaskedLm, Relation
from genai_core.data.collate import collate
from genai_core.data.documents import read_documents_file
from genai_core.data.linked_rows import PairDrawer, Segment, draw_pairs, pair_row, segment_tokens
from genai_core.data.packing import PackedRow
from genai_core.data.tokenizer import document_end_id, document_start_id, load_tokenizer
from genai_core.models.backbone import hidden_states, see_segments
from genai_core.models.load import load_model
from genai_core.representations.probing import fit_probe

CONTINUED_STEPS, ASKED, TAUGHT, DRAWS = 150, 300, 1000, 4
ARMS: dict[str, tuple[Relation, ...]] = {
    "linked": ("contiguous", "random", "linked"),
    "unlinked": ("contiguous", "random"),
}
BEHIND = "masked loss of a text behind the one that links to it, nats/token"
FOLLOWING = "masked loss of a text behind the one that it follows, nats/token"
GAIN = "what the linking text tells beyond any other, nats/token"
RIGHT = "right of a linear probe: linked or not"


@dataclass(frozen=True)
class _Listed:
    """Rows in memory, as the engine takes them."""

    rows: Sequence[PackedRow]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Iterable[int]) -> list[PackedRow]:
        return [self.rows[index] for index in indices]


@dataclass(frozen=True)
class _Side:
    """Pairs of one side of the split."""

    linked: _Listed
    """A text behind one that links to it."""

    strange: _Listed
    """The same texts, each behind one that neither links to it nor is linked by it."""

    following: _Listed


def measure(setting: Setting) -> Cases:
    """Go on from the masked model with and without linked pairs; ask both about linked pairs of held-out documents."""
    corpus = small_corpus(setting)
    start = pretrain_arm(setting, corpus, MaskedLm(masking=SPANS, reads="previous"), STEPS)
    models = {
        name: continue_arm(
            setting, start, corpus, LinkedLm(masking=SPANS, reads="previous", relations=relations), CONTINUED_STEPS
        )
        for name, relations in ARMS.items()
    }
    taught = _pairs(corpus, ("train",), setting.seed, TAUGHT)
    asked = _pairs(corpus, ("heldout", "train"), setting.seed, ASKED)
    found: dict[str, dict[str, list[float]]] = {BEHIND: {}, FOLLOWING: {}, GAIN: {}, RIGHT: {}}
    tokenizer = load_tokenizer(corpus / "tokenizer")
    for name, folder in models.items():
        model: Any = load_model(folder).eval()
        losses = {
            rows: row_losses(model, tokenizer, given, MEASURED, len(given), draws=4)
            for rows, given in (("linked", asked.linked), ("strange", asked.strange), ("following", asked.following))
        }
        found[BEHIND][name] = losses["linked"]
        found[FOLLOWING][name] = losses["following"]
        found[GAIN][name] = [b - a for a, b in zip(losses["linked"], losses["strange"], strict=True)]
        found[RIGHT][name] = _probed(model, taught, asked, setting.seed)
    return found


def _pairs(corpus: Path, sides: Sequence[str], seed: int, most: int) -> _Side:
    """Return up to `most` linked pairs, and as many following ones; the second text alone is asked.

    Args:
        corpus: a dataset artifact.
        sides: of the split; a text of a pair, at least, is of the first. No training links documents of two sides.
        seed: decides what is drawn.
        most: pairs.
    """
    tokenizer = load_tokenizer(corpus / "tokenizer")
    parts = [read_documents_file(corpus / "documents" / f"{side}.parquet") for side in sides]
    segments = segments_of([one for part in parts for one in part], tokenizer, segment_tokens(SEQ_LEN), LinkedLm())
    start, end = document_start_id(tokenizer), document_end_id(tokenizer)
    rng = np.random.Generator(np.random.PCG64(seed))

    def is_asked(place: int) -> bool:
        return segments[place].document < len(parts[0])

    def drawn(relation: Relation) -> list[tuple[int, int]]:
        found = draw_pairs(PairDrawer(segments, (relation,)), DRAWS, seed)
        pairs = sorted({(a, b) for _, a, b in found if is_asked(a) or is_asked(b)})
        return [pairs[at] for at in sorted(rng.permutation(len(pairs))[:most])]

    def written(pairs: Sequence[tuple[int, int]]) -> _Listed:
        return _Listed([_row(segments[a], segments[b], start, end) for a, b in pairs])

    linked = drawn("linked")
    strangers = PairDrawer(segments, ("random",))
    strange = []
    for _, second in linked:
        other = strangers.draw(second, rng)
        assert other is not None
        strange.append((other[1], second))
    return _Side(written(linked), written(strange), written(drawn("contiguous")))


def _row(first: Segment, second: Segment, start: int, end: int) -> PackedRow:
    """Return a pair behind its opening token, whose second text alone may be hidden."""
    row = pair_row(start, first.ids, second.ids, SEQ_LEN, end=end, pad=end)
    places = np.arange(SEQ_LEN)
    behind = 2 + len(first.ids)
    return replace(row, loss_mask=((places >= behind) & (places < behind + len(second.ids))).astype(np.int8))


def _probed(model: Any, taught: _Side, asked: _Side, seed: int) -> list[float]:
    """Return for each held-out pair, linked ones first, whether a probe fitted on training pairs knows which it is."""
    sides = [
        (torch.cat([_states(model, side.linked), _states(model, side.strange)]), _labels(side))
        for side in (taught, asked)
    ]
    probe = fit_probe(*sides[0], 2, seed=seed)
    x, labels = sides[1]
    return [float(value) for value in (probe(x).argmax(dim=1) == labels)]


def _labels(side: _Side) -> Tensor:
    return torch.tensor([1] * len(side.linked) + [0] * len(side.strange))


@torch.no_grad()
def _states(model: Any, given: _Listed) -> Tensor:
    """Return what the model makes of each pair, (n, 2 D) float64: the opening token's state, and the mean of all."""
    found = []
    for at in range(0, len(given), 64):
        batch = collate(given.take(range(at, min(at + 64, len(given)))))
        seen = see_segments(batch["segment_ids"])
        hidden = hidden_states(model, batch["input_ids"], batch["position_ids"], seen).double()
        own = (batch["segment_ids"] == 0).double().unsqueeze(-1)  # padding is a segment of its own
        found.append(torch.cat([hidden[:, 0], (hidden * own).sum(1) / own.sum(1)], dim=1))
    return torch.cat(found)


CLAIM = Claim(
    name="linkbert",
    source="LinkBERT, Yasunaga et al. 2022, arXiv 2203.15827",
    asks=f"The masked model of the first claim, {CONTINUED_STEPS} steps more on pairs of texts, with and without linked ones; "
    "asked about documents of Python's documentation that refer to each other, one of them at least held out.",
    comparisons=(
        Comparison("a text is better known behind one that links to it", BEHIND, "linked", "unlinked", "lower"),
        Comparison("because more is drawn from that one", GAIN, "linked", "unlinked", "higher"),
        Comparison("a linear probe tells linked from other pairs more often", RIGHT, "linked", "unlinked", "higher"),
        Comparison("a text that follows is known as well, to 2 %", FOLLOWING, "linked", "unlinked", "lower", 0.06),
    ),
    measure=measure,
)

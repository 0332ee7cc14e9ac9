"""Concept erasure: what kind of object a text documents is no longer read from a model's states, and what that costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from genai_core.claims.arms import pretrain_arm, small_corpus
from genai_core.claims.base import Cases, Claim, Comparison, Setting
from genai_core.claims.combination import STEPS
from genai_core.config.erasure import ErasureConfig
from genai_core.config.lifecycle import EvaluationConfig
from genai_core.config.objectives import CausalLm
from genai_core.data.tokenizer import load_tokenizer
from genai_core.evaluation.erasure_report import labels_of
from genai_core.evaluation.labelled_texts import read_labelled
from genai_core.evaluation.runner import choose_documents
from genai_core.generation.scoring import score
from genai_core.models.load import load_model
from genai_core.representations.erasers import Eraser, fit_leace, fit_random
from genai_core.representations.moments import Moments
from genai_core.representations.probing import fit_probe, split_in_two
from genai_core.representations.scrubbing import points_of, scrubbed
from genai_core.representations.states import encode, moments_at, pooled_at

FITTED, ASKED, DOCUMENTS, TOKENS = 2000, 1000, 200, 32
RIGHT, FRESH, BITS = "right of a linear probe", "right of a linear probe of fresh texts", "loss, bits/byte"
BEFORE, AFTER, RANDOM, COMMONEST = "before", "after LEACE", "after a random projection", "the commonest label"


def measure(setting: Setting) -> Cases:
    """Fit both erasers layer by layer on some texts; probe others, and measure held-out documents."""
    corpus = small_corpus(setting)
    folder = pretrain_arm(setting, corpus, CausalLm(), STEPS)
    model: Any = load_model(folder).eval()
    tokenizer = load_tokenizer(corpus / "tokenizer")
    wanted = ErasureConfig(max_texts=FITTED + ASKED, min_label_texts=50, seed=setting.seed)
    found = read_labelled(wanted, corpus, None)
    order = torch.randperm(len(found.fitted), generator=torch.Generator().manual_seed(setting.seed)).tolist()
    rows = [[found.fitted[at] for at in sorted(part)] for part in (order[:FITTED], order[FITTED:])]
    fitted, asked = (encode(tokenizer, "causal", [row["text"] for row in part], TOKENS) for part in rows)
    labels = [row["label"] for row in rows[0]]
    points, n_labels = points_of(model), len(found.labels)

    def fit(how: Callable[[Moments, int], Eraser]) -> dict[str, Eraser]:
        erasers: dict[str, Eraser] = {}
        for at, point in enumerate(points):
            erasers[point] = how(moments_at(model, fitted, labels, n_labels, erasers, [point])[point], at)
        return erasers

    leace = fit(lambda moments, _: fit_leace(moments))
    ranks = [eraser.rank for eraser in leace.values()]
    arms: dict[str, Mapping[str, Eraser]] = {
        BEFORE: {},
        AFTER: leace,
        RANDOM: fit(lambda moments, at: fit_random(moments, ranks[at], setting.seed + at)),
    }
    sides = labels_of(rows[0]), labels_of(rows[1])
    places = [points[0], points[len(points) // 2], points[-1]]
    right: dict[str, list[float]] = {}
    fresh: dict[str, list[float]] = {}
    for arm, erasers in arms.items():
        states = [pooled_at(model, texts, erasers, places) for texts in (fitted, asked)]
        right[arm] = _probed(states[0], sides[0], states[1], sides[1], n_labels, setting.seed)
        fresh[arm] = _probed_in_halves(states[1], sides[1], n_labels, setting.seed)
    documents = choose_documents(corpus, "heldout", EvaluationConfig(max_documents=DOCUMENTS, seed=setting.seed))
    texts = [{"row_id": document.doc_id, "text": document.text} for document in documents]
    bits = {}
    for arm, erasers in arms.items():
        with scrubbed(model, erasers):
            bits[arm] = [one["nll"] / math.log(2) / one["n_bytes"] for one in score(model, tokenizer, texts)]
    return {
        RIGHT: {**right, COMMONEST: _guessed(sides[0], sides[1])},
        FRESH: {**fresh, COMMONEST: _guessed_in_halves(sides[1], setting.seed)},
        BITS: bits,
    }


def _probed(
    fitted: Mapping[str, Tensor], labels: Tensor, asked: Mapping[str, Tensor], known: Tensor, n_labels: int, seed: int
) -> list[float]:
    """Return for each asked text the share of places at which a probe that was fitted on others finds its label."""
    found = torch.zeros(len(known), dtype=torch.float64)
    for place, x in asked.items():
        probe = fit_probe(fitted[place], labels, n_labels, seed=seed)
        found += (probe(x).argmax(dim=1) == known).double() / len(asked)
    return [float(value) for value in found]


def _probed_in_halves(states: Mapping[str, Tensor], labels: Tensor, n_labels: int, seed: int) -> list[float]:
    """Return the same where each half of the texts is predicted from the other."""
    found = [0.0] * len(labels)
    one, other = split_in_two(len(labels), seed)
    for own, asked in ((one, other), (other, one)):
        halves = [{place: x[half] for place, x in states.items()} for half in (own, asked)]
        right = _probed(halves[0], labels[own], halves[1], labels[asked], n_labels, seed)
        for at, value in zip(asked.tolist(), right, strict=True):
            found[at] = value
    return found


def _guessed(labels: Tensor, known: Tensor) -> list[float]:
    """Return for each text whether its label is the commonest one of others."""
    [(commonest, _)] = Counter(labels.tolist()).most_common(1)
    return [float(label == commonest) for label in known.tolist()]


def _guessed_in_halves(labels: Tensor, seed: int) -> list[float]:
    """Return the same where each half of the texts is guessed from the other."""
    found = [0.0] * len(labels)
    one, other = split_in_two(len(labels), seed)
    for own, asked in ((one, other), (other, one)):
        for at, value in zip(asked.tolist(), _guessed(labels[own], labels[asked]), strict=True):
            found[at] = value
    return found


CLAIM = Claim(
    name="leace",
    source="LEACE, Belrose et al. 2023, arXiv 2306.03819",
    asks=f"The causal model of the first claim; the kind of object is erased before every layer, fitted on {FITTED:,} training "
    f"texts. Probes, at three depths, are fitted on the same; they are asked about {ASKED:,} others, of which fresh probes see "
    "one half before they are asked about the other.",
    comparisons=(
        Comparison("a linear probe finds the kind, by 10 points", RIGHT, BEFORE, COMMONEST, "higher", -0.1),
        Comparison("and no longer does, to 3 points", RIGHT, AFTER, COMMONEST, "lower", 0.03),
        Comparison("nor does one that is fitted on fresh texts", FRESH, AFTER, COMMONEST, "lower", 0.03),
        Comparison(
            "a random projection of equal rank hides nothing, to 3 points", RIGHT, RANDOM, BEFORE, "higher", 0.03
        ),
        Comparison("text is predicted as before, to 2 %", BITS, AFTER, BEFORE, "lower", 0.04),
        Comparison("and as after the random projection, to 2 %", BITS, AFTER, RANDOM, "lower", 0.04),
    ),
    measure=measure,
)

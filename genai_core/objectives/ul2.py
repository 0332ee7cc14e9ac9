"""UL2's mixture of denoisers for a decoder: what was left out of a text is written behind it.

    [NLU] x x <0> x x <1> | <0> s s <1> s s s          R: short spans, few    X: long or many ([NLG])
    [S2S] x x x | s s s s                              S: the rest of the text
    loss = sum over the tokens behind the bar  -log p(token | all before it)          averaged over them

Tay et al. 2022 (arXiv 2205.05131, sections 3.1 and 3.2); spans as T5 draws them (Raffel et al. 2020, arXiv 1910.10683,
section 3.1.4): of n tokens round(n r) are noise, in round(n r / mu) spans; both are cut at random places, a kept stretch
comes first, and each span is one sentinel before the bar and the same sentinel with its tokens behind it. What stands before
the bar is read from both sides (prefix language modelling), or causally: `attention`.

- A denoiser is drawn for each segment at each visit. A text that is longer with its marks than its segment is cut to a
  window that fits, at a random place, so that rows keep their length; padding behind it is last, and seen by nothing.
- A segment that is not trained on throughout is an instruction pair: it stays as it is, its prompt before the bar.
- R and X take n as large as fits; S cuts anywhere, so that its rate is uniform.
- A span does not end with a mark: the next sentinel or the end of the segment ends it. The last span does without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from genai_core.models.backbone import see_segments
from genai_core.objectives.base import IGNORE_INDEX, Batch, Forward, TokenObjective

LEAST_TOKENS = 5  # mode, one kept, sentinel, sentinel, one left out: a shorter segment is not denoised


@dataclass(frozen=True, slots=True)
class Denoiser:
    """One way of leaving out."""

    mode_id: int
    """The token that says which."""

    share: float
    """How often it is taken, relative to the others."""

    rate: float = 0.0
    """Share of the tokens that is left out; 0 = the rest of the text, from a random place on (S)."""

    mean_span: float = 1.0
    """Mean length of a span in tokens."""


class Ul2Objective(TokenObjective):
    """`ul2`, in nats per token behind the bar."""

    name = "ul2"
    is_likelihood = False

    def __init__(
        self,
        denoisers: Sequence[Denoiser],
        sentinel_ids: Sequence[int],
        pad_id: int,
        attention: Literal["prefix", "causal"] = "prefix",
    ) -> None:
        self._denoisers = tuple(denoisers)
        self._sentinel_ids = tuple(sentinel_ids)
        self._pad_id = pad_id
        self._attention = attention
        shares = np.array([one.share for one in self._denoisers])
        self._shares = shares / shares.sum()

    def forwards(self) -> Sequence[Forward]:
        """Return one pass that sees what `corrupt` says."""
        return (Forward(outputs=frozenset({"logps"}), attention="given"),)

    def corrupt(self, batch: Batch, progress: float) -> Batch:
        """Return rows of the same length in which each segment of text is denoised."""
        ids, places = batch["input_ids"].cpu().numpy(), batch["position_ids"].cpu().numpy()
        given = batch["labels"].cpu().numpy()
        trained = given != IGNORE_INDEX
        shown, labels = np.full_like(ids, self._pad_id), np.full_like(ids, IGNORE_INDEX)
        prefix = np.zeros_like(ids)
        for row, seed in enumerate(batch["noise"].tolist()):
            generator = np.random.Generator(np.random.PCG64(seed))
            starts = np.flatnonzero(places[row] == 0)
            for start, end in zip(starts, [*starts[1:], ids.shape[1]], strict=True):
                if end - start < LEAST_TOKENS or not trained[row, start + 1 : end].all():
                    shown[row, start:end], labels[row, start:end] = ids[row, start:end], given[row, start:end]
                    known = np.flatnonzero(trained[row, start:end])
                    prefix[row, start:end] = known[0] if len(known) else 0
                    continue
                source, target = self._denoise(ids[row, start:end], generator)
                bar, stop = start + len(source), start + len(source) + len(target)
                shown[row, start:bar], shown[row, bar:stop] = source, target
                labels[row, bar:stop] = target
                prefix[row, start:end] = len(source)
        device, position = batch["input_ids"].device, batch["position_ids"]
        before = torch.from_numpy(prefix).to(device)
        other = position.unsqueeze(1)  # (B, 1, T) of the token that is seen
        seen = other <= position.unsqueeze(2)
        if self._attention == "prefix":
            seen = seen | (other < before.unsqueeze(1))
        return {
            **batch,
            "input_ids": torch.from_numpy(shown).to(device),
            "labels": torch.from_numpy(labels).to(device),
            "seen": see_segments(batch["segment_ids"]) & seen,
        }

    def _denoise(self, text: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return what stands before the bar and behind it, together at most as long as the text."""
        one = self._denoisers[int(generator.choice(len(self._denoisers), p=self._shares))]
        room = len(text) - 1
        if not one.rate:
            cut = int(generator.integers(1, room))
            return np.array([one.mode_id, *text[:cut]]), text[cut:room]
        size, noise, spans = self._fit(one, room)
        start = int(generator.integers(0, len(text) - size + 1))
        window = text[start : start + size]
        left_out = split_randomly(noise, spans, generator)
        kept = split_randomly(size - noise, spans, generator)
        source, target, at = [np.array([one.mode_id])], [], 0
        for number, (keep, leave) in enumerate(zip(kept, left_out, strict=True)):
            mark = np.array([self._sentinel_ids[number]])
            source += [window[at : at + keep], mark]
            target += [mark, window[at + keep : at + keep + leave]]
            at += keep + leave
        return np.concatenate(source), np.concatenate(target)

    def _fit(self, one: Denoiser, room: int) -> tuple[int, int, int]:
        """Return the most tokens of text that fit with their marks, how many of them are noise, and in how many spans."""
        size = room - 2
        while size > 2:
            noise, spans = count_noise(size, one.rate, one.mean_span, len(self._sentinel_ids))
            if size + 2 * spans <= room:
                return size, noise, spans
            size -= 1
        return 2, 1, 1


def count_noise(tokens: int, rate: float, mean_span: float, most_spans: int) -> tuple[int, int]:
    """Return how many of so many tokens are left out, and in how many spans: T5's rule, at least one of each."""
    noise = min(max(round(tokens * rate), 1), tokens - 1)
    return noise, min(max(round(noise / mean_span), 1), noise, tokens - noise, most_spans)


def split_randomly(total: int, parts: int, generator: np.random.Generator) -> np.ndarray:
    """Return the lengths of so many stretches of at least one token, (parts,), every way to cut `total` as likely."""
    cuts = np.sort(generator.choice(total - 1, parts - 1, replace=False)) + 1 if parts > 1 else np.empty(0, dtype=int)
    return np.diff(np.concatenate([[0], cuts, [total]])).astype(np.int64)

"""Which tokens of a row are hidden, and what stands in their place: the noise of masked language modelling.

    units      one token each; a word with all its pieces; or spans of random length, in words or in tokens
    chosen     units at random until a share `rate` of the candidates is reached
    replaced   80 % by the mask token, 10 % by a random token, 10 % left as they are (BERT, Devlin et al. 2019, 3.1)

The last unit is taken with the probability that makes the expected number of hidden tokens exactly rate * candidates:
cutting it would hide half words, taking it always would hide too many (objectives.md 3.2, checks 2.9.5).
Spans partition the row and are then chosen, as in GPT-BERT (arXiv 2410.24159); so their lengths are those of the
distribution: uniform, or SpanBERT's truncated geometric (Joshi et al. 2020, arXiv 1907.10529).
Every token of a word draws its replacement for itself, a span draws once for all of its tokens.

Noise is drawn row by row from the row's own generator, so neither micro-batches nor ranks can change it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from genai_core.config.masking import Masking, SpanUnit, TokenUnit, WordUnit
from genai_core.errors import ConfigError

GEOMETRIC_P, LONGEST_SPAN = 0.2, 10
WORD_MARKS = ("Ġ", "Ċ", "ĉ", "č", "▁")  # space, newline, tab and return of byte-level BPE; sentencepiece's space


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """What masking knows of a tokenizer."""

    mask_id: int
    is_special: np.ndarray
    """(V,) bool: never hidden, never put in another token's place."""

    begins_word: np.ndarray
    """(V,) bool: the token does not go on with the word of the token before it."""

    @staticmethod
    def of(tokenizer: Any, mask_token: str = "") -> Vocabulary:
        """Return what a tokenizer says of its entries.

        Args:
            tokenizer: with a mask token of its own, or:
            mask_token: an entry that stands for what is hidden, such as "_" (LLM2Vec's blank).

        Raises:
            ConfigError: there is no mask token.
        """
        mask_id = tokenizer.convert_tokens_to_ids(mask_token) if mask_token else tokenizer.mask_token_id
        if mask_id is None or (mask_token and tokenizer.convert_ids_to_tokens(mask_id) != mask_token):
            wanted = f"no entry {mask_token!r}" if mask_token else "no mask token"
            raise ConfigError(
                f"The tokenizer has {wanted}, so nothing can be hidden. Set data.tokenizer.mask_token=true for one that is "
                "trained here, or objective.mask_token to an entry that text rarely needs, such as '_'."
            )
        entries = [token or "" for token in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]
        is_special = np.zeros(len(entries), dtype=bool)
        is_special[[*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder, mask_id]] = True
        begins = np.array(begin_words(entries)) | is_special
        return Vocabulary(int(mask_id), is_special, begins)


def begin_words(entries: list[str]) -> list[bool]:
    """Return whether each entry of a whole vocabulary opens a word: WordPiece marks what goes on, byte-level BPE and sentencepiece what begins."""
    if any(entry.startswith("##") for entry in entries):
        return [not entry.startswith("##") for entry in entries]
    return [entry[:1] in WORD_MARKS or not (entry[:1].isalnum() or entry[:1] == "_") for entry in entries]


class Masker:
    """Hides tokens of rows."""

    def __init__(self, config: Masking, vocabulary: Vocabulary) -> None:
        self._config = config
        self._vocabulary = vocabulary
        self._ordinary = np.flatnonzero(~vocabulary.is_special)

    @property
    def vocabulary(self) -> Vocabulary:
        """Return what is known of the tokenizer."""
        return self._vocabulary

    def rate(self, progress: float) -> float:
        """Return the share that is hidden at this point of the training, linear from `rate` to `final_rate`."""
        first, last = self._config.rate, self._config.final_rate
        return first if last is None else first + (last - first) * progress

    def candidates(self, ids: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """Return which positions may be hidden, (T,) bool: allowed ones without a special token."""
        found: np.ndarray = allowed & ~self._vocabulary.is_special[ids]
        return found

    def hide(
        self, ids: np.ndarray, allowed: np.ndarray, rate: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the row with some tokens hidden, (T,), and which ones, (T,) bool; at least one if there is a candidate.

        Args:
            ids: (T,) token ids.
            allowed: (T,) bool, where a token may be hidden if it is no special one.
            rate: share of the candidates, in (0, 1].
            rng: the row's own.
        """
        places = np.flatnonzero(self.candidates(ids, allowed))
        hidden = np.zeros(len(ids), dtype=bool)
        if not len(places):
            return ids.copy(), hidden
        unit_of = self._units(ids, places, rng)  # (n,) unit of each candidate, ascending
        sizes = np.bincount(unit_of)
        order = rng.permutation(len(sizes))
        before = np.cumsum(sizes[order]) - sizes[order]
        wanted = max(1.0, rate * len(places))
        share = np.clip((wanted - before) / sizes[order], 0.0, 1.0)  # of each unit; only the last is not 0 or 1
        taken = share > rng.random()
        taken[0] = True
        chosen = np.zeros(len(sizes), dtype=bool)
        chosen[order[taken]] = True
        hidden[places[chosen[unit_of]]] = True
        return self._replace(ids, places, unit_of, chosen, rng), hidden

    def _units(self, ids: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the number of the unit that each candidate belongs to, (n,), ascending without gaps."""
        unit = self._config.unit
        apart = np.diff(places, prepend=places[0] - 2) > 1  # a unit does not reach across what may not be hidden
        match unit:
            case TokenUnit():
                return np.arange(len(places))
            case WordUnit():
                return np.cumsum(self._vocabulary.begins_word[ids[places]] | apart) - 1
            case SpanUnit():
                parts = self._vocabulary.begins_word[ids[places]] | apart if unit.whole_words else np.ones_like(apart)
                part_of = np.cumsum(parts) - 1
                lengths = _span_lengths(unit, int(part_of[-1]) + 1, rng)
                span_of_part = np.repeat(np.arange(len(lengths)), lengths)[: part_of[-1] + 1]
                borders = np.diff(span_of_part[part_of], prepend=-1) > 0
                return np.cumsum(borders | apart) - 1

    def _replace(
        self, ids: np.ndarray, places: np.ndarray, unit_of: np.ndarray, chosen: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return the row with the chosen units replaced."""
        config, noisy = self._config, ids.copy()
        draws = rng.random(len(chosen))[unit_of] if isinstance(config.unit, SpanUnit) else rng.random(len(places))
        others = self._ordinary[rng.integers(0, len(self._ordinary), len(places))]
        here = chosen[unit_of]
        masked = here & (draws < config.mask_share)
        other = here & ~masked & (draws < config.mask_share + config.random_share)
        noisy[places[masked]] = self._vocabulary.mask_id
        noisy[places[other]] = others[other]
        return noisy


def _span_lengths(unit: SpanUnit, total: int, rng: np.random.Generator) -> np.ndarray:
    """Return lengths that cover `total` parts."""
    if unit.lengths == "geometric":
        weights = GEOMETRIC_P * (1 - GEOMETRIC_P) ** np.arange(LONGEST_SPAN)
        return rng.choice(np.arange(1, LONGEST_SPAN + 1), size=total, p=weights / weights.sum())
    return rng.integers(1, unit.longest + 1, size=total)

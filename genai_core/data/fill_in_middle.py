"""Fill-in-the-middle: some documents are rearranged, so that a causal model learns to write what stands between two texts.

    PSM    <prefix> p <suffix> s <middle> m          SPM    <prefix> <suffix> s <middle> p m

Bavarian et al. 2022 (arXiv 2207.14255, sections 3 and 4.3): a document is cut at two uniform *character* places; half of
the rearranged ones are PSM, half SPM; the plain causal loss is on all tokens. Rearranged are documents, before packing.
What is drawn for a document depends on (seed, document) alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from genai_core.data.tokenizer import FIM_MARKS, encode_documents
from genai_core.errors import ConfigError

SPM_SHARE = 0.5
_OTHER_MARKS = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")  # StarCoder's


@dataclass(frozen=True, slots=True)
class Marks:
    """The ids of the three marks."""

    prefix: int
    suffix: int
    middle: int

    @staticmethod
    def of(tokenizer: Any) -> Marks:
        """Return a tokenizer's marks.

        Raises:
            ConfigError: it has none.
        """
        known = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
        for names in (FIM_MARKS, _OTHER_MARKS):
            if all(name in known for name in names):
                return Marks(*(int(known[name]) for name in names))
        raise ConfigError(
            f"data.fim_rate needs a tokenizer with the marks {', '.join(FIM_MARKS)}; this one has none. Set it to 0, or use "
            "data.tokenizer.kind='train'."
        )


def cut(text: str, rng: random.Random) -> tuple[str, str, str]:
    """Return prefix, middle and suffix of a text, cut at two uniform places; any of them may be empty."""
    first, second = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
    return text[:first], text[first:second], text[second:]


def encode_with_middles(
    tokenizer: Any, texts: Sequence[str], names: Sequence[str], rate: float, seed: int
) -> Iterator[list[int]]:
    """Yield the ids of each text, in order, a share of them rearranged.

    Args:
        tokenizer: with the three marks.
        texts: the documents.
        names: of the documents, which their noise is drawn from.
        rate: share that is rearranged, in [0, 1].
        seed: of the choice.

    Raises:
        ConfigError: the tokenizer has no marks.
    """
    marks = Marks.of(tokenizer)
    pieces: list[tuple[str, ...]] = []
    is_spm: list[bool] = []
    for text, name in zip(texts, names, strict=True):
        rng = random.Random(f"{seed}/fim/{name}")
        chosen = rng.random() < rate
        pieces.append(cut(text, rng) if chosen else (text,))
        is_spm.append(rng.random() < SPM_SHARE)
    encoded = encode_documents(tokenizer, (piece for parts in pieces for piece in parts))
    for parts, spm in zip(pieces, is_spm, strict=True):
        ids = list(islice(encoded, len(parts)))
        yield ids[0] if len(ids) == 1 else _arrange(ids, marks, spm=spm)


def _arrange(ids: Sequence[list[int]], marks: Marks, *, spm: bool) -> list[int]:
    prefix, middle, suffix = ids
    if spm:
        return [marks.prefix, marks.suffix, *suffix, marks.middle, *prefix, *middle]
    return [marks.prefix, *prefix, marks.suffix, *suffix, marks.middle, *middle]


def infill_prompt(tokenizer: Any, prefix: str, suffix: str) -> list[int]:
    """Return the ids after which a model writes what stands between two texts, and then the end of the document.

    Raises:
        ConfigError: the tokenizer has no marks.
    """
    marks = Marks.of(tokenizer)
    before, after = encode_documents(tokenizer, [prefix, suffix])
    return [marks.prefix, *before, marks.suffix, *after, marks.middle]

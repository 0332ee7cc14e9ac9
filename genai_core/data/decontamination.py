"""Training text that gives away the answer of an evaluation pair is dropped.

What counts is the *junction*: n-grams of prompt + answer that hold at least one word of the answer. A prompt alone
gives nothing away: open-book prompts quote documentation that may rightly stand elsewhere, and what a whole held-out
document shares with training has been looked at by `split.find_leaks` already. Items shorter than n words are one
n-gram of their own length; below `LEAST_WORDS` they would match everywhere and are counted as unprotected.

An n-gram found in more than `COMMON` training documents is boilerplate (a licence header, a phrase of the prompt's
template), not a leaked item, and is ignored: the rule of lm-eval's janitor, which drops none for n-grams matched more
than ten times. The number of ignored n-grams is reported, because a leak copied eleven times would hide in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from genai_core.data.documents import Pair
from genai_core.data.shingles import Hashes, WordHasher, contains, join_ngrams

COMMON = 10
LEAST_WORDS = 5


@dataclass(frozen=True, slots=True)
class Contamination:
    """What was found in the training texts."""

    hits: dict[int, str]
    """Position of a training text -> pair_id of the first evaluation pair whose junction it holds."""

    by_task: dict[str, int] = field(default_factory=dict)
    """Evaluation task -> number of its pairs that were found in at least one training text."""

    common_ngrams: int = 0
    """Junction n-grams ignored because more than ten training texts hold them."""

    unprotected: int = 0
    """Evaluation pairs too short to be looked for."""


def find_contamination(texts: Sequence[str], pairs: Sequence[Pair], n: int) -> Contamination:
    """Return the training texts that hold an evaluation pair's junction n-gram.

    Args:
        texts: training documents.
        pairs: all held-out and sealed pairs.
        n: words of an n-gram; 13 is the usual choice (Brown et al. 2020, arXiv 2005.14165, appendix C).
    """
    hasher = WordHasher()
    wanted: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))  # length -> hash -> pairs
    unprotected = 0
    for position, pair in enumerate(pairs):
        length, hashes = junction(hasher, pair, n)
        unprotected += not length
        for value in set(hashes.tolist()):
            wanted[length][value].append(position)

    holders: dict[tuple[int, int], list[int]] = defaultdict(list)  # (length, hash) -> training texts
    looked_for = {length: np.fromiter(sorted(wanted[length]), dtype=np.uint64) for length in sorted(wanted)}
    for index, text in enumerate(texts):
        words = hasher.words(text)
        for length, values in looked_for.items():
            ngrams = join_ngrams(words, length)
            for value in np.unique(ngrams[contains(values, ngrams)]).tolist():
                holders[length, value].append(index)

    hits: dict[int, str] = {}
    found: set[int] = set()
    common = 0
    for (length, value), where in sorted(holders.items()):
        if len(where) > COMMON:
            common += 1
            continue
        found.update(wanted[length][value])
        first = pairs[min(wanted[length][value])].pair_id
        for index in where:
            hits[index] = min(first, hits.get(index, first))
    by_task: dict[str, int] = {}
    for position in sorted(found):
        by_task[pairs[position].task] = by_task.get(pairs[position].task, 0) + 1
    return Contamination(dict(sorted(hits.items())), dict(sorted(by_task.items())), common, unprotected)


def junction(hasher: WordHasher, pair: Pair, n: int) -> tuple[int, Hashes]:
    """Return (words of an n-gram, the hashes of n-grams that hold a word of the answer); (0, none) if too short."""
    prompt, answer = hasher.words(pair.prompt), hasher.words(pair.completion)
    length = min(n, len(prompt) + len(answer))
    if length < LEAST_WORDS or not len(answer):
        return 0, np.empty(0, np.uint64)
    return length, join_ngrams(np.concatenate([prompt[len(prompt) - min(len(prompt), length - 1) :], answer]), length)


def find_repeated_prompts(train: Sequence[Pair], held: Sequence[Pair]) -> list[int]:
    """Return the positions of training pairs whose prompt an evaluation pair has too, word for word."""
    hasher = WordHasher()
    asked = {hasher.words(pair.prompt).tobytes() for pair in held}
    return [index for index, pair in enumerate(train) if hasher.words(pair.prompt).tobytes() in asked]

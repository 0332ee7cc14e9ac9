"""Extractive pairs out of any prose: a passage and the beginning of one of its sentences -> that sentence.

    One day, a little girl named Lily found a needle. She knew it was sharp. ...

    Which sentence of the passage begins with: She knew it

The passage is a run of whole sentences on one line; the request is the last paragraph. Written here, read again by
the verifier, both with `split_sentences`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from genai_core.augmentation.sentences import split_sentences
from genai_core.config.data import QuotePairs
from genai_core.data.documents import Document, Pair
from genai_core.errors import DataError

REQUESTS = (
    "Which sentence of the passage begins with: {beginning}",
    "Write the sentence that begins with: {beginning}",
    "Quote the sentence of the text that begins with: {beginning}",
)

_MARK = " begins with: "
_LEAST_BEGINNING = 3
_LEAST_REST = 3
_MAX_SENTENCE_WORDS = 25  # longer ones do not fit the 48 new tokens that evaluation allows
_DRAWS = 8  # a draw can land on a heading, a list or a sentence asked before


def quote_pairs(documents: Sequence[Document], config: QuotePairs, seed: int) -> list[Pair]:
    """Return the pairs of all documents, in their order; a pair depends on (seed, its document, its index) alone.

    Raises:
        DataError: no document has two sentences that fit into a passage.
    """
    pairs: list[Pair] = []
    for document in documents:
        sentences = split_sentences(document.text)
        seen: set[str] = set()
        for index in range(config.per_document):
            rng = random.Random(f"{seed}/{document.doc_id}/{index}")
            drawn = _draw(sentences, config.passage_words, seen, rng)
            if drawn is None:
                continue
            passage, sentence, beginning = drawn
            seen.add(sentence)
            pairs.append(
                Pair(
                    pair_id=f"quote:{document.doc_id}:{index}",
                    task="quote",
                    group=document.group,
                    doc_id=document.doc_id,
                    prompt=f"{passage}\n\n{rng.choice(REQUESTS).format(beginning=beginning)}",
                    completion=sentence,
                    check={"kind": "quote", "gold": sentence},
                )
            )
    if not pairs:
        raise DataError(
            f"none of the {len(documents):,} documents gives a quote pair: each needs two sentences within "
            f"passage_words={config.passage_words}, one of {_LEAST_BEGINNING + _LEAST_REST} to {_MAX_SENTENCE_WORDS} "
            "words. Raise pairs.passage_words, or use source.document='file' to have longer documents."
        )
    return pairs


def read_passage(prompt: str) -> str:
    """Return the passage that a prompt shows: all but its last paragraph."""
    return prompt.rpartition("\n\n")[0]


def read_beginning(prompt: str) -> str:
    """Return the asked beginning, '' if the request names none."""
    return prompt.rpartition("\n\n")[2].partition(_MARK)[2].strip()


def _draw(
    sentences: Sequence[str], passage_words: int, seen: set[str], rng: random.Random
) -> tuple[str, str, str] | None:
    """Return (passage, sentence, its beginning), or None if no draw gives an unseen sentence."""
    if len(sentences) < 2:
        return None
    for _ in range(_DRAWS):
        start, words, chosen = rng.randrange(len(sentences) - 1), 0, []
        for sentence in sentences[start:]:
            words += len(sentence.split(" "))
            if words > passage_words:
                break
            chosen.append(sentence)
        passage = " ".join(chosen)
        # Split again: a heading without a full stop runs into the sentence after it once they stand on one line.
        shown = split_sentences(passage)
        candidates = [
            (sentence, beginning)
            for sentence in shown
            if sentence not in seen and len(shown) > 1 and (beginning := unique_beginning(sentence, shown))
        ]
        if candidates:
            return (passage, *rng.choice(candidates))
    return None


def unique_beginning(sentence: str, shown: Sequence[str]) -> str:
    """Return the shortest beginning that no other shown sentence has; '' if none leaves enough to be written."""
    words = sentence.split(" ")
    if len(words) > _MAX_SENTENCE_WORDS:
        return ""
    for length in range(_LEAST_BEGINNING, len(words) - _LEAST_REST + 1):
        beginning = " ".join(words[:length])
        if sum(other.startswith(beginning) for other in shown) == 1:
            return beginning
    return ""

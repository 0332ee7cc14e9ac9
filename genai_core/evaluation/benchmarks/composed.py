"""What composed texts are worth beside the real ones that they were made from: pure functions over lists of words.

    BLEU-4      brevity * (p_1 p_2 p_3 p_4)^(1/4) of a set of texts      (Papineni et al. 2002; no smoothing)
    ROUGE-L     F1 of the longest common subsequence of a text            (Lin 2004)
    coherence   mean cosine of a beginning with its own rest, less that with the others' rests; TF-IDF, so it is lexical:
                it knows which words go together in a text, nothing of sense or order
    copies      share of a text's n-grams that stand in a training document, and the longest run of words that does
    downstream  a label learned from texts by TF-IDF and logistic regression, asked of real held-out texts

The comparison that they are for is arXiv 2405.12630.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

BLEU_ORDER = 4
MAX_ITERATIONS = 1000
WORD = r"\w+|[^\w\s]"

Words = Sequence[str]


def bleu(texts: Sequence[Words], references: Sequence[Words]) -> float:
    """Return BLEU-4 of texts with one reference each, counted over all of them together; 0 where an order has no match."""
    ours, theirs = (sum(len(text) for text in side) for side in (texts, references))
    logs = 0.0
    for n in range(1, BLEU_ORDER + 1):
        matched = total = 0
        for text, reference in zip(texts, references, strict=True):
            grams = Counter(_grams(text, n))
            matched += (grams & Counter(_grams(reference, n))).total()
            total += grams.total()
        if not matched:
            return 0.0
        logs += math.log(matched / total)
    return math.exp(min(0.0, 1 - theirs / ours) + logs / BLEU_ORDER)


def rouge_l(text: Words, reference: Words) -> float:
    """Return the F1 of the longest common subsequence of a text and its reference; 0 where one of them is empty."""
    if not text or not reference:
        return 0.0
    row = [0] * (len(reference) + 1)
    for word in text:
        diagonal = 0
        for at, other in enumerate(reference, 1):
            diagonal, row[at] = row[at], diagonal + 1 if word == other else max(row[at], row[at - 1])
    return 2 * row[-1] / (len(text) + len(reference))


def coherence(cosines: np.ndarray) -> np.ndarray:
    """Return how much nearer each beginning is to its own rest than to the others', (n,); 0 for fewer than two texts.

    Args:
        cosines: (n, n) of each beginning (row) with each rest (column).
    """
    n = len(cosines)
    if n < 2:
        return np.zeros(n)
    own = np.diagonal(cosines)
    found: np.ndarray = own - (cosines.sum(axis=1) - own) / (n - 1)
    return found


class Tfidf:
    """Texts as TF-IDF vectors of length 1, over the words of some real ones."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Count the words of the real texts."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(token_pattern=WORD, sublinear_tf=True).fit(texts)

    def cosines(self, texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
        """Return the cosine of each text with each of the others, (n, m); words that the real texts lack are passed over."""
        found: np.ndarray = (self._vectorizer.transform(texts) @ self._vectorizer.transform(others).T).toarray()
        return found


@dataclass(frozen=True, slots=True)
class Copied:
    """How much of one text stands in training documents."""

    grams: int
    """n-grams that are judged."""

    copied: int
    """Of them, how many stand in some training document."""

    elsewhere: int
    """How many stand in another than the one that the text was made from."""

    longest: int
    """Words of the longest run that stands in one document; 0 where no n-gram does."""


def copies(
    texts: Sequence[Words],
    written: Sequence[Sequence[bool]],
    sources: Sequence[str],
    documents: Iterable[tuple[str, Words]],
    n: int,
) -> list[Copied]:
    """Return what is copied in each text; n-grams without a written word are not judged.

    The texts' n-grams are few and the documents' many: the documents are read once, and only matches are kept.

    Args:
        texts: words of each text; what was given and cannot count as copied is left out, or marked as not written.
        written: whether each word was written.
        sources: doc_id of the document that each text was made from.
        documents: (doc_id, words) of the training documents.
        n: words in a row.
    """
    places: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    judged = [0] * len(texts)
    for index, (words, flags) in enumerate(zip(texts, written, strict=True)):
        for at, gram in enumerate(_grams(words, n)):
            if any(flags[at : at + n]):
                places.setdefault(gram, []).append((index, at))
                judged[index] += 1
    found: list[set[int]] = [set() for _ in texts]
    elsewhere: list[set[int]] = [set() for _ in texts]
    longest = [0] * len(texts)
    for doc_id, words in documents:
        before: dict[tuple[int, int], int] = {}  # matches that end at the document's word before: how long they run
        for gram in _grams(words, n):
            runs: dict[tuple[int, int], int] = {}
            for index, at in places.get(gram, ()):
                runs[index, at] = before.get((index, at - 1), n - 1) + 1
                longest[index] = max(longest[index], runs[index, at])
                found[index].add(at)
                if doc_id != sources[index]:
                    elsewhere[index].add(at)
            before = runs
    return [
        Copied(judged[index], len(found[index]), len(elsewhere[index]), longest[index]) for index in range(len(texts))
    ]


def classify(texts: Sequence[str], labels: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Return the label of each text that is asked for, as learned from labelled ones; the most frequent if they are empty."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    counts = Counter(labels)
    if len(counts) < 2 or not any(text.strip() for text in texts):
        return [min(counts, key=lambda label: (-counts[label], label))] * len(asked)
    model = make_pipeline(
        TfidfVectorizer(token_pattern=WORD, sublinear_tf=True), LogisticRegression(max_iter=MAX_ITERATIONS)
    )
    model.fit(texts, labels)
    return [str(label) for label in model.predict(asked)]


def macro_f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    """Return the mean F1 of the labels that the gold has: a label counts as much as another, however rare."""
    scores = []
    for label in sorted(set(gold)):
        right = sum(p == g == label for p, g in zip(predicted, gold, strict=True))
        scores.append(2 * right / (sum(p == label for p in predicted) + sum(g == label for g in gold)))
    return sum(scores) / len(scores) if scores else 0.0


def _grams(words: Words, n: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(n)), strict=False)

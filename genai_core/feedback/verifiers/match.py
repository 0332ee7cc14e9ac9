"""Judges a free answer against the one that the user's row holds.

    valid   is not empty, does not copy the prompt, does not repeat itself without end, has at most 2,000 words
    without gold: score 1 if valid; this says that the answer is well-formed, not that it is true
    with gold:    score 1 if valid and *right*: equal to the gold answer after normalisation, or token F1 >= 0.8
                  with the same numbers and negations

Normalisation: lower case, white space collapsed, punctuation around words dropped; signs and decimals stay, so that
-5 is not 5. Token F1 as in SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250), articles kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from genai_core.data.documents import Pair
from genai_core.feedback.gold import read_gold
from genai_core.feedback.types import Feedback

SOURCE = "match"
MIN_F1 = 0.8
MAX_WORDS = 2000
_MAX_CHARS = 20 * MAX_WORDS
# An answer is running away when its last 24 words are one run of up to 8 words, again and again.
_MAX_PERIOD = 8
_MIN_REPEATED_WORDS = 24
_NEGATIONS = frozenset({"no", "not", "never", "none", "nor", "without", "cannot"})
_NUMBER = re.compile(r"[-+]?\d[\d.,:/]*")


def judge_match(pair: Pair, answer: str | None, *, use_gold: bool) -> Feedback:
    """Return the feedback; without gold `step_scores` are (not empty, not too long, no copy, no runaway)."""
    written = (answer or "").strip()
    words = _normalise(written[:_MAX_CHARS])
    checks = [
        (bool(words), "The answer is empty."),
        (len(written) <= _MAX_CHARS and len(words) <= MAX_WORDS, f"The answer has more than {MAX_WORDS:,} words."),
        (words != _normalise(pair.prompt), "The answer only copies the prompt."),
        (not _runs_away(words), "The answer repeats the same words without end."),
    ]
    valid = all(passed for passed, _ in checks)
    text = next((remark for passed, remark in checks if not passed), "")
    if not use_gold:
        return Feedback(float(valid), text, tuple(float(p) for p, _ in checks), valid=valid, source=SOURCE)
    right = valid and is_same_answer(written, read_gold(pair))
    text = text or ("" if right else "The answer differs from the right one.")
    return Feedback(float(right), text, valid=valid, source=SOURCE, uses_gold=True)


def is_same_answer(answer: str, gold: str) -> bool:
    """Return whether two answers say the same: equal tokens, or F1 >= 0.8 with equal numbers and negations."""
    ours, theirs = _normalise(answer), _normalise(gold)
    if ours == theirs:
        return True
    return _decisive(ours) == _decisive(theirs) and token_f1(ours, theirs) >= MIN_F1


def token_f1(ours: Sequence[str], theirs: Sequence[str]) -> float:
    """Return the harmonic mean of precision and recall of tokens as multisets; 0 if either is empty."""
    common = (Counter(ours) & Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def _normalise(text: str) -> list[str]:
    """Return the tokens; a text of punctuation alone keeps it, so that it equals nothing else."""
    tokens = text.casefold().split()
    bare = [re.sub(r"^[^\w+\-$€£#@]+|[^\w%+#]+$", "", token) for token in tokens]
    return [token for token in bare if token] or tokens


def _decisive(tokens: Sequence[str]) -> Counter[str]:
    """Return what may not differ: numbers with their sign, and negations."""
    return Counter(t for t in tokens if _NUMBER.fullmatch(t) or t in _NEGATIONS or t.endswith(("n't", "n’t")))


def _runs_away(words: Sequence[str]) -> bool:
    """Return whether the end of the answer is one short run of words again and again."""
    tail = list(words[-_MIN_REPEATED_WORDS:])
    if len(tail) < _MIN_REPEATED_WORDS:
        return False
    return any(tail[period:] == tail[:-period] for period in range(1, _MAX_PERIOD + 1))

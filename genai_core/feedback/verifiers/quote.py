"""Judges a sentence quoted from the prompt's passage.

    valid   occurs in the passage word for word (white space aside) as a whole sentence
    without gold: score 1 if valid and it begins as the prompt asks
    with gold:    score 1 if valid and it is the asked sentence

The whole answer is judged: a quotation with talk around it is not one.
"""

from __future__ import annotations

from genai_core.augmentation.quote_pairs import read_beginning, read_passage
from genai_core.augmentation.sentences import collapse_spaces, split_sentences
from genai_core.data.documents import Pair
from genai_core.feedback.answers import one_line, unwrap_code
from genai_core.feedback.gold import read_gold
from genai_core.feedback.types import Feedback

SOURCE = "quote"


def judge_quote(pair: Pair, answer: str | None, *, use_gold: bool) -> Feedback:
    """Return the feedback; without gold `step_scores` are (not empty, in the passage, whole sentence, as asked)."""
    written = collapse_spaces(unwrap_code(answer))
    passage = collapse_spaces(read_passage(pair.prompt))
    beginning = collapse_spaces(read_beginning(pair.prompt))
    checks = [
        (bool(written), "The answer is empty."),
        (f" {written} " in f" {passage} ", "The answer does not occur in the passage word for word."),
        (written in split_sentences(passage), "The answer is not one whole sentence of the passage."),
        (written.startswith(beginning), one_line(f"The asked sentence begins with: {beginning}", 160)),
    ]
    passed = 0
    while passed < len(checks) and checks[passed][0]:
        passed += 1
    valid = passed >= 3
    if use_gold:
        right = valid and written == collapse_spaces(read_gold(pair))
        text = "" if right else "This is not the asked sentence."
        return Feedback(float(right), text, valid=valid, source=SOURCE, uses_gold=True)
    text = "" if passed == len(checks) else checks[passed][1]
    steps = tuple(float(index < passed) for index in range(len(checks)))
    return Feedback(float(passed == len(checks)), text, steps, valid=valid, source=SOURCE)

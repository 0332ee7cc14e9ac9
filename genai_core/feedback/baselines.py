"""Answers without a model: what a metric must be seen beside, or `len([])` wins everything.

constant    the same valid answer to all: `len([])`, `len`, the passage's first sentence, "I do not know."
copied      what the prompt shows, copied: the documented signature, the summary, the passage, the prompt
majority    the commonest right answer of each task among these very pairs: no constant can score better
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from genai_core.augmentation.call_prompts import documented_signatures
from genai_core.augmentation.quote_pairs import read_passage
from genai_core.augmentation.sentences import split_sentences
from genai_core.data.documents import Pair

CONSTANT_CALL = "len([])"


def baseline_answers(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Return {"constant", "copied", "majority": one answer a pair, in the order of the pairs}."""
    majority = _majority_by_task(pairs)
    return {
        "constant": [_constant(pair) for pair in pairs],
        "copied": [_copied(pair) for pair in pairs],
        "majority": [majority[pair.task] for pair in pairs],
    }


def _constant(pair: Pair) -> str:
    match pair.check.get("kind"):
        case "python_call":
            return CONSTANT_CALL
        case "python_name":
            return "len"
        case "quote":
            return next(iter(split_sentences(read_passage(pair.prompt))), "")
        case _:
            return "I do not know."


def _copied(pair: Pair) -> str:
    match pair.check.get("kind"):
        case "python_call":
            return next(iter(documented_signatures(pair.prompt)), pair.prompt)
        case "quote":
            return read_passage(pair.prompt)
        case _:
            return pair.prompt


def _majority_by_task(pairs: Sequence[Pair]) -> dict[str, str]:
    """Return each task's commonest right answer; of equally common ones the first by text."""
    counts: dict[str, Counter[str]] = {}
    for pair in pairs:
        counts.setdefault(pair.task, Counter())[pair.completion] += 1
    return {task: min(found, key=lambda answer: (-found[answer], answer)) for task, found in counts.items()}

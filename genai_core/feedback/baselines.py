"""Answers without a model: what a metric must be seen beside, or `len([])` wins everything.

constant    the same valid answer to all: `len([])`, `len`, the passage's first sentence, "I do not know."
copied      what the prompt shows, copied: the documented signature, the summary, the passage, the prompt
majority    the commonest right answer of each task among these very pairs: no constant can score better
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from genai_core.augmentation.call_prompts import documented_signatures
from genai_core.augmentation.quote_pairs import read_passage
from genai_core.augmentation.sentences import split_sentences
from genai_core.data.documents import Pair, read_pairs

CONSTANT_CALL = "len([])"


def fit_baselines(corpus: Path) -> dict[str, Callable[[Pair], str]]:
    """Return the baselines of a dataset, the majority learned from its training pairs: name -> answer to a pair."""
    return make_baselines(read_pairs(corpus / "pairs" / "train.parquet"))


def make_baselines(train: Sequence[Pair]) -> dict[str, Callable[[Pair], str]]:
    """Return {"constant", "copied", "majority": answer to a pair}; a task without training pairs gets '' as majority."""
    majority = _majority_by_task(train)
    return {"constant": _constant, "copied": _copied, "majority": lambda pair: majority.get(pair.task, "")}


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

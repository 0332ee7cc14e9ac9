"""One door to the verifiers: a pair, an answer, and whether the right answer may be looked at.

    use_gold=False   `valid`: well-formed by its task's definition. `score` 1.0: valid and passes every check that the
                     prompt allows; learn from these, choose among candidates by (score, sum of step_scores).
    use_gold=True    `score` 1.0: right. For acceptance on held-out pairs only; marked uses_gold.

What can only be checked weakly without gold (closed-book names, free answers) is not open book: a loop that learns from
its own answers must leave such pairs out (`is_open_book`), or it learns its own inventions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genai_core.augmentation.call_prompts import asked_arguments, documented_names
from genai_core.augmentation.quote_pairs import read_beginning, read_passage
from genai_core.data.documents import Pair
from genai_core.errors import DataError
from genai_core.feedback.types import Feedback
from genai_core.feedback.verifiers.match import judge_match
from genai_core.feedback.verifiers.python_call import judge_python_call, resolve_name
from genai_core.feedback.verifiers.python_name import judge_python_name
from genai_core.feedback.verifiers.quote import judge_quote

_OPEN_BOOK = frozenset({"python_call", "quote"})


def is_open_book(pair: Pair) -> bool:
    """Return whether the prompt holds what decides the answer, so that checks without gold mean something."""
    return pair.check.get("kind") in _OPEN_BOOK and not _is_uncertain(pair)


def _is_uncertain(pair: Pair) -> bool:
    """Return whether retrieved documents leave open which one is right: none, a wrong one, or several."""
    shown = pair.check.get("retrieved")
    return shown is not None and (len(shown) != 1 or not pair.check["is_oracle_in_context"])


class Verifier:
    """Judges answers to instruction pairs. Pure: same arguments, same feedback; nothing is executed or imported."""

    def __init__(self, objects: Mapping[str, Any] | None = None) -> None:
        self._objects = objects

    def judge(self, pair: Pair, answer: str | None, *, use_gold: bool) -> Feedback:
        """Return the feedback on one answer; an answer that cannot be read is valid=False, score 0, never an error.

        Raises:
            DataError: the pair itself cannot be used: unknown check, no objects for it, no gold where it is asked for.
        """
        kind = pair.check.get("kind")
        match kind:
            case "python_call":
                return judge_python_call(pair, answer, self._known_objects(pair), use_gold=use_gold)
            case "python_name":
                return judge_python_name(pair, answer, self._known_objects(pair), use_gold=use_gold)
            case "quote":
                return judge_quote(pair, answer, use_gold=use_gold)
            case "match":
                return judge_match(pair, answer, use_gold=use_gold)
            case _:
                raise DataError(
                    f"Pair {pair.pair_id} asks for the check {kind!r}; there are python_call, python_name, quote and match."
                )

    def check_of(self, prompt: str) -> str:
        """Return the kind of check that a prompt carries in its own form, '' if it carries none.

        A documented signature and quoted values ask for a call; a passage and a beginning ask for a sentence of it.
        """
        names = documented_names(prompt) if asked_arguments(prompt) else []
        if any(resolve_name(name, self._objects or {}) for name in names):
            return "python_call"
        beginning = read_beginning(prompt)
        return "quote" if beginning and beginning in read_passage(prompt) else ""

    def check_all(self, pairs: Sequence[Pair], answers: Sequence[str | None], *, use_gold: bool) -> list[Feedback]:
        """Return the feedback on each pair's answer, in order; no row is ever left out.

        Raises:
            ValueError: not one answer for each pair.
        """
        return [self.judge(pair, answer, use_gold=use_gold) for pair, answer in zip(pairs, answers, strict=True)]

    def _known_objects(self, pair: Pair) -> Mapping[str, Any]:
        if self._objects is None:
            raise DataError(
                f"Pair {pair.pair_id} is about Python objects, but the dataset has no objects.json. Build it with the "
                "pydocs source."
            )
        return self._objects


def open_verifier(corpus_dir: Path) -> Verifier:
    """Return the verifier of a dataset's pairs; it knows Python's objects if the dataset has objects.json."""
    return Verifier(read_objects(corpus_dir))


def read_objects(corpus_dir: Path) -> dict[str, Any] | None:
    """Return a dataset's Python objects and their signatures; None if it is about something else."""
    path = corpus_dir / "objects.json"
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found

"""Judges the dotted name of an object, answered closed book.

    valid   is a dotted name, and an object of this name exists
    without gold: score 1 if valid; the prompt says nothing more that could be checked, so this is weak
    with gold:    score 1 if valid and *right*: the asked object

`()` and a full stop after the name are dropped, `len` is `builtins.len`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from genai_core.data.documents import Pair
from genai_core.feedback.answers import first_line, one_line, unwrap_code
from genai_core.feedback.gold import read_gold
from genai_core.feedback.types import Feedback
from genai_core.feedback.verifiers.python_call import resolve_name

SOURCE = "python_name"
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_MAX_CHARS = 200


def judge_python_name(pair: Pair, answer: str | None, objects: Mapping[str, Any], *, use_gold: bool) -> Feedback:
    """Return the feedback; without gold `step_scores` are (is a name, exists)."""
    written = first_line(unwrap_code(answer)).removesuffix(".").removesuffix("()")
    if len(written) > _MAX_CHARS or not _NAME.fullmatch(written):
        steps = () if use_gold else (0.0, 0.0)
        text = "The answer is not a dotted name such as module.function."
        return Feedback(0.0, text, steps, valid=False, source=SOURCE, uses_gold=use_gold)
    name = resolve_name(written, objects)
    if name is None:
        steps = () if use_gold else (1.0, 0.0)
        text = one_line(f"There is no object {written!r} in the standard library.")
        return Feedback(0.0, text, steps, valid=False, source=SOURCE, uses_gold=use_gold)
    if not use_gold:
        return Feedback(1.0, "", (1.0, 1.0), source=SOURCE)
    gold = read_gold(pair)
    right = name == (resolve_name(gold, objects) or gold)
    text = "" if right else one_line(f"{written} exists, but is not the asked object.")
    return Feedback(float(right), text, source=SOURCE, uses_gold=True)

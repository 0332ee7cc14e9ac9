"""Judges a call of a documented object: does it parse, exist, bind, and is it the asked one.

    valid   parses as one call, names an object that exists, binds to that object's signature
    without gold: score 1 if valid, names an object that the prompt documents, and its values are those that the
            prompt quotes, in whatever places (each check counts only where the prompt says anything about it)
    with gold:    score 1 if valid and *right*: the asked object with the asked value for each parameter, no more

Without gold nothing but the prompt, the answer and the objects is read. A call with two values swapped passes without
gold and is not right. Positional and keyword forms are one after binding; the order of keywords does not matter; an
argument that was not asked is wrong also where it spells out the default.
Strict where the AST evaluation of Gorilla (arXiv 2305.15334) matches substrings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genai_core.augmentation.call_prompts import asked_arguments, documented_names
from genai_core.data.documents import Pair
from genai_core.errors import DataError
from genai_core.feedback.answers import one_line, unwrap_code
from genai_core.feedback.calls import (
    Call,
    UnreadableCallError,
    bind_call,
    build_signature,
    dump_value,
    parse_call,
    parse_expression,
)
from genai_core.feedback.types import Feedback

SOURCE = "python_call"


def judge_python_call(pair: Pair, answer: str | None, objects: Mapping[str, Any], *, use_gold: bool) -> Feedback:
    """Return the feedback; without gold `step_scores` are (parses, exists, binds, documented, values), 0 or 1.

    Raises:
        DataError: `use_gold` and the pair's own gold answer is missing or not valid.
    """
    steps: list[float] = []
    try:
        call = parse_call(unwrap_code(answer))
        steps.append(1.0)
        name = resolve_name(call.name, objects)
        if name is None:
            raise UnreadableCallError(_unknown(call.name, pair.prompt))
        steps.append(1.0)
        bound = _bind(call, name, objects)
        steps.append(1.0)
    except UnreadableCallError as error:
        padded = () if use_gold else (*steps, *[0.0] * (5 - len(steps)))
        return Feedback(0.0, one_line(str(error)), padded, valid=False, source=SOURCE, uses_gold=use_gold)
    if use_gold:
        right = (name, bound) == _read_gold(pair, objects)
        text = "" if right else f"This is a valid call of {call.name}, but not the asked one."
        return Feedback(float(right), one_line(text), source=SOURCE, uses_gold=True)
    remarks = [_remark_on_name(name, pair.prompt, objects), _remark_on_values(call, pair.prompt)]
    steps += [float(not remark) for remark in remarks]
    text = " ".join(remark for remark in remarks if remark)
    return Feedback(float(not text), one_line(text), tuple(steps), source=SOURCE)


def resolve_name(name: str, objects: Mapping[str, Any]) -> str | None:
    """Return the name under which an object is stored (`len` is `builtins.len`), None if there is none."""
    return next((n for n in (name, f"builtins.{name}", name.removeprefix("builtins.")) if n in objects), None)


def _bind(call: Call, name: str, objects: Mapping[str, Any]) -> dict[str, Any]:
    stored = objects[name]
    if stored is None:
        raise UnreadableCallError(f"The signature of {call.name} is not known, so the call cannot be checked.")
    return bind_call(call, build_signature(stored))


def _read_gold(pair: Pair, objects: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the asked object and its bound arguments."""
    gold = pair.check.get("gold")
    try:
        call = parse_call(gold if isinstance(gold, str) else "")
        name = resolve_name(call.name, objects)
        if name is None:
            raise UnreadableCallError(f"There is no object {call.name}.")
        return name, _bind(call, name, objects)
    except UnreadableCallError as error:
        raise DataError(
            f"The right answer {gold!r} of pair {pair.pair_id} cannot be used: {error} Judge it without gold, or build "
            "the pairs and objects.json again from one source."
        ) from error


def _unknown(name: str, prompt: str) -> str:
    documented = documented_names(prompt)
    hint = f" The documentation is about {', '.join(documented)}." if documented else ""
    return f"There is no object {one_line(name, 80)!r} in the standard library.{hint}"


def _remark_on_name(name: str, prompt: str, objects: Mapping[str, Any]) -> str:
    """Return '' if the prompt documents the object, or documents none."""
    documented = documented_names(prompt)
    if not documented or name in {resolve_name(each, objects) for each in documented}:
        return ""
    return f"The documentation is about {', '.join(documented)}, not {name}."


def _remark_on_values(call: Call, prompt: str) -> str:
    """Return '' if the call's values are exactly those that the prompt quotes, or if it quotes none."""
    asked = _asked_values(prompt)
    if not asked:
        return ""
    left, missing = call.values, []
    for written, value in asked:
        if value in left:
            left.remove(value)
        else:
            missing.append(written)
    if missing:
        return f"The call lacks {' and '.join(missing)}."
    return "The call has an argument that was not asked for." if left else ""


def _asked_values(prompt: str) -> list[tuple[str, str]]:
    """Return ("name = value", the value's syntax) for each value that the request quotes.

    A person's own prompt may hold `path = 'C:\\Users'` or `x = is`: what is not Python is not a value.
    """
    asked: list[tuple[str, str]] = []
    for name, source in asked_arguments(prompt):
        try:
            asked.append((f"{name} = {source}", dump_value(parse_expression(source))))
        except UnreadableCallError:
            continue
    return asked

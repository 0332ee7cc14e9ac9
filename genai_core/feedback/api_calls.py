"""Does an answer call an API that a database documents, and the asked one: a strict form of Gorilla's AST evaluation.

    unparsable      no call in the answer can be read
    hallucination   its call is none of the database
    error           it is one of the database, but not the asked one
    correct         it is the asked one: same function, same required arguments         the four sum to 1

    torch.hub.load('pytorch/vision', 'resnet50', pretrained=True)     required: repo_or_dir, model; `pretrained` is free

Strict: names are resolved through the answer's own imports, arguments are bound by position or keyword and compared as
syntax. The released scripts (Patil et al. 2023, arXiv 2305.15334, section 3.3 and appendix) find an argument anywhere in
the text, accept any function once no name fits, take the first fitting entry and call it correct where the *domain* is
the asked one. `judge_leniently` does as they do, so that figures can be compared; it is never what is learned from.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from genai_core.errors import DataError
from genai_core.feedback.answers import unwrap_code
from genai_core.feedback.calls import MAX_CHARS, Call, UnreadableCallError, read_call

Outcome = Literal["correct", "error", "hallucination", "unparsable"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

CALL_MARK, PROVIDER_MARK = "<<<api_call>>>", "<<<api_provider>>>"

# function -> its first parameters by position, all of them required; a name that begins with "." is any class's method
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "torch.hub.load": ("repo_or_dir", "model"),
    "hub.load": ("handle",),
    "hub.KerasLayer": ("handle",),
    "pipeline": ("task", "model"),  # the model where the documented call names one: without it any default may come
    ".from_pretrained": ("pretrained_model_name_or_path",),
}
_PACKAGES = frozenset({"transformers", "diffusers", "sentence_transformers", "tensorflow_hub", "ultralytics"})
_FIRST = ("argument",)  # what other functions are told apart by: their first argument, given by position


@dataclass(frozen=True, slots=True)
class Api:
    """A documented call: the function, and each required argument with its value as syntax."""

    name: str
    required: tuple[tuple[str, str], ...]

    def fits(self, other: Api) -> bool:
        """Return whether another call is of this API: what the documented call leaves open may be filled."""
        return self.name == other.name and set(self.required) <= set(other.required)


class ApiDatabase:
    """The documented calls; judges answers against them. Nothing is executed or imported."""

    def __init__(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Read the records.

        Args:
            records: each with `api_call` (source text) and `domain`. One whose call cannot be read matches no answer.

        Raises:
            DataError: no record's call can be read.
        """
        self._entries: list[tuple[Api, tuple[str, ...], str]] = []
        self.unreadable = 0
        for record in records:
            calls = find_calls(_tidy(str(record["api_call"])))
            if calls:
                self._entries.append((_api_of(calls[0]), _texts_of(calls[0]), str(record.get("domain", ""))))
            else:
                self.unreadable += 1
        if not self._entries:
            raise DataError(f"None of {len(records)} API records has an api_call that can be read as a call.")
        self._known = {api for api, _, _ in self._entries}

    def judge(self, answer: str | None, gold: str) -> Outcome:
        """Return what the answer is, where `gold` is the asked call.

        Raises:
            DataError: the asked call itself cannot be read.
        """
        asked = _read_gold(gold)
        calls = find_calls(extract_call(answer))
        if not calls:
            return "unparsable"
        names = {api.name for api in self._known} | {asked.name}
        # of a program's calls the first of a documented function: the others prepare or use what it loads
        chosen = next((api for api in map(_api_of, calls) if api.name in names), None)
        if chosen is None:
            return "hallucination"
        if asked.fits(chosen):
            return "correct"
        return "error" if any(api.fits(chosen) for api in self._known) else "hallucination"

    def judge_leniently(self, answer: str | None, gold: str, domain: str) -> Outcome:
        """Return what the released scripts say: arguments found in the text, any function, right by domain."""
        text = extract_call(answer)
        if not find_calls(text):
            return "unparsable"
        for _, values, own in self._entries:
            if values and all(value in text for value in values):
                return "correct" if own == domain else "error"
        return "hallucination"


def shares(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the share of each outcome; they sum to 1. Raises DataError for no outcome."""
    if not outcomes:
        raise DataError("No answer was judged, so there is no share of anything. Give at least one question.")
    return {outcome: sum(one == outcome for one in outcomes) / len(outcomes) for outcome in OUTCOMES}


def extract_call(answer: str | None) -> str:
    """Return what stands between the marks of the call and of the provider; without the first mark the whole answer."""
    text = answer or ""
    if CALL_MARK in text:
        text = text.partition(CALL_MARK)[2].partition(PROVIDER_MARK)[0].lstrip().removeprefix(":")
    return _tidy(unwrap_code(text))


def find_calls(text: str) -> list[Call]:
    """Return the readable calls of a program, outer before inner, names resolved through its imports; [] if it is none."""
    if not text or len(text) > MAX_CHARS:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
        nodes = sorted(
            (node for node in ast.walk(tree) if isinstance(node, ast.Call)), key=lambda n: (n.lineno, n.col_offset)
        )
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    aliases = _read_imports(tree)
    calls: list[Call] = []
    for node in nodes:
        try:
            call = read_call(node)
        except UnreadableCallError:
            continue
        calls.append(Call(_resolve(call.name, aliases), call.positional, call.keywords))
    return calls


def _read_gold(gold: str) -> Api:
    calls = find_calls(_tidy(gold))
    if not calls:
        raise DataError(f"The asked call {gold!r} cannot be read as a call. Leave such questions out.")
    return _api_of(calls[0])


def _api_of(call: Call) -> Api:
    """Return what decides which API a call is of."""
    name = _resolve(call.name, {})
    parameters = REQUIRED.get(name) or REQUIRED.get("." + name.rpartition(".")[2]) or _FIRST
    bound = dict(zip(parameters, call.positional, strict=False))
    bound |= {key: value for key, value in call.keywords.items() if key in parameters}
    return Api(name, tuple(sorted(bound.items())))


def _texts_of(call: Call) -> tuple[str, ...]:
    """Return the required arguments that are strings, as they would stand in a text."""
    found = []
    for _, value in _api_of(call).required:
        if value.startswith("Constant(value="):
            literal = ast.literal_eval(value.removeprefix("Constant(value=").removesuffix(")"))
            if isinstance(literal, str):
                found.append(literal)
    return tuple(found)


def _read_imports(tree: ast.Module) -> dict[str, str]:
    """Return {name in the program: what it stands for} of its imports, and of plain names given to dotted ones."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                aliases |= {one.asname: one.name for one in names if one.asname}
            case ast.ImportFrom(module=str(module), names=names):
                aliases |= {one.asname or one.name: f"{module}.{one.name}" for one in names}
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Attribute() | ast.Name() as value):
                aliases[target] = ast.unparse(value)
            case _:
                pass
    return aliases


def _resolve(name: str, aliases: Mapping[str, str]) -> str:
    """Return a dotted name without aliases and without the package that a class or function comes from."""
    for _ in range(len(aliases)):  # an alias of an alias; a circle ends here
        head, dot, rest = name.partition(".")
        if head not in aliases:
            break
        name = aliases[head] + dot + rest
    parts = name.split(".")
    if parts[0] == "tensorflow_hub":
        return ".".join(["hub", *parts[1:]])
    if parts[0] in _PACKAGES and len(parts) > 1:
        classes = [at for at, part in enumerate(parts) if part[:1].isupper()]
        return ".".join(parts[classes[0] :] if classes else parts[-1:])
    return name


def _tidy(text: str) -> str:
    """Return the text without the full stop that some documented calls end with."""
    return text.strip().removesuffix(".").strip()

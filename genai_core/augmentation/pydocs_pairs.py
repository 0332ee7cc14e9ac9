"""Instruction pairs out of Python's documentation.

"call", open book: the documentation and concrete values are in the prompt, the call is the answer.

    textwrap.shorten(text, width, **kwargs)             ->  textwrap.shorten(text='blue sky', width=20)
    Collapse and truncate the given text ...

    Write the call with text = 'blue sky' and width = 20.

"name", closed book: the one-line summary is in the prompt, the dotted name is the answer.

Canonical style of a call: positional-only parameters by position, all others by keyword, in the signature's order.
Then the answer says which value goes where, and a verifier can name the parameter that is wrong.
Functions and classes (class and static methods too) only: an instance method's call needs an instance, which has no
literal in general; it is known by its first parameter, `self`.

What is drawn for an object depends on (seed, object, index) alone, so that pairs stay when other documents come or go;
only a summary that two documents share takes both name pairs away.
"""

from __future__ import annotations

import ast
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genai_core.augmentation.argument_values import write_value
from genai_core.augmentation.call_prompts import REQUESTS, write_call_prompt
from genai_core.augmentation.sentences import collapse_spaces, first_sentences
from genai_core.config.data import PydocsPairs
from genai_core.data.documents import Document, Pair
from genai_core.errors import DataError

NAME_REQUEST = "Which object of Python's standard library does this: {summary}?"

_KINDS = frozenset({"function", "method", "class"})
_NAMEABLE = frozenset({"POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"})
_DOCUMENTATION_WORDS = 60  # with signature and request about 150 tokens of a 4,096-entry vocabulary
_SIGNATURE_CHARS = 120
ANSWER_CHARS = 110  # longer answers do not fit the 48 new tokens that evaluation allows
_MAX_REQUIRED = 4
_MIN_SUMMARY_WORDS = 4


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that a call can name."""

    name: str
    kind: str
    required: bool
    annotation: str
    default: str


def pydocs_pairs(
    documents: Sequence[Document],
    config: PydocsPairs,
    seed: int,
    objects: Mapping[str, Any],
    *,
    documented: bool = True,
) -> list[Pair]:
    """Return the pairs of all documents, in their order, a document's calls before its name.

    Args:
        documents: with meta object, signature, kind, summary.
        config: how many calls, and whether names are asked.
        seed: decides what is drawn.
        objects: {dotted name: [[parameter, inspect kind, has_default], ...] or None}.
        documented: False asks for calls closed book, by the summary alone: what documents are retrieved for.

    Raises:
        DataError: no document gives a pair.
    """
    shared = Counter(_fold(str(document.meta.get("summary") or "")) for document in documents)
    pairs: list[Pair] = []
    for document in documents:
        if document.meta.get("kind") not in _KINDS or document.meta.get("object") not in objects:
            continue
        summary = _telling_summary(document, shared)
        if documented or summary:
            shown = "" if documented else summary
            pairs += _call_pairs(document, config.calls_per_object, seed, objects[document.meta["object"]], shown)
        if config.names and summary:
            pairs += _name_pairs(document, summary)
    if not pairs:
        raise DataError(
            f"none of the {len(documents):,} documents gives an instruction pair: pairs.kind='pydocs' needs documented "
            "functions or classes with a known signature. Raise source.max_modules or lower the quality rules."
        )
    return pairs


def _call_pairs(
    document: Document, wanted: int, seed: int, stored: Sequence[Sequence[Any]] | None, summary: str = ""
) -> list[Pair]:
    """Return up to `wanted` different calls; none if the signature is unknown or has no parameter to name.

    With a summary the prompt shows it instead of signature and documentation.
    """
    name = str(document.meta["object"])
    parameters = read_parameters(stored or (), str(document.meta.get("signature") or ""))
    required = [parameter for parameter in parameters if parameter.required]
    if not parameters or len(required) > _MAX_REQUIRED or parameters[0].name in ("self", "cls"):
        return []
    signature, documentation = "", summary
    if not summary:
        signature, documentation = shown_signature(document, stored or ()), shown_documentation(document)
    pairs: list[Pair] = []
    seen: set[str] = set()
    for index in range(wanted):
        rng = random.Random(f"{seed}/{name}/{index}")
        arguments = draw_arguments(parameters, rng)
        request = rng.choice(REQUESTS)
        call = write_call(name, [(p.name, p.kind, value) for p, value in arguments])
        if call in seen or len(call) > ANSWER_CHARS:
            continue
        seen.add(call)
        prompt = write_call_prompt(signature, documentation, [(p.name, value) for p, value in arguments], request)
        pairs.append(
            Pair(
                pair_id=f"call:{document.doc_id}:{index}",
                task="call",
                group=document.group,
                doc_id=document.doc_id,
                prompt=prompt,
                completion=call,
                check={"kind": "python_call", "gold": call},
            )
        )
    return pairs


def _telling_summary(document: Document, shared: Mapping[str, int]) -> str:
    """Return the summary if it points at this object alone and does not name it; else ''."""
    summary = collapse_spaces(str(document.meta.get("summary") or ""))
    own = str(document.meta["object"]).rpartition(".")[2]
    if len(summary.split()) < _MIN_SUMMARY_WORDS or re.search(rf"\b{re.escape(own)}\b", summary, re.IGNORECASE):
        return ""
    return summary if shared[_fold(summary)] == 1 else ""


def _name_pairs(document: Document, summary: str) -> list[Pair]:
    name = str(document.meta["object"])
    return [
        Pair(
            pair_id=f"name:{document.doc_id}",
            task="name",
            group=document.group,
            doc_id=document.doc_id,
            prompt=NAME_REQUEST.format(summary=summary.rstrip(".")),
            completion=name,
            check={"kind": "python_name", "gold": name},
        )
    ]


def write_call(name: str, arguments: Sequence[tuple[str, str, str]]) -> str:
    """Return the canonical call of (parameter, inspect kind, value as source text), given in the signature's order."""
    written = [value if kind == "POSITIONAL_ONLY" else f"{parameter}={value}" for parameter, kind, value in arguments]
    return f"{name}({', '.join(written)})"


def shown_signature(document: Document, stored: Sequence[Sequence[Any]]) -> str:
    """Return "name(parameters)" for a prompt: with defaults as documented or, if that is long, with `=...`."""
    name, told = str(document.meta["object"]), str(document.meta.get("signature") or "")
    told = collapse_spaces(told[told.find("(") :]) if "(" in told else ""
    if told and len(name) + len(told) <= _SIGNATURE_CHARS:
        return name + told
    parts: list[str] = []
    previous = ""
    for parameter, kind, has_default in stored:
        if previous == "POSITIONAL_ONLY" and kind != "POSITIONAL_ONLY":
            parts.append("/")
        if kind == "KEYWORD_ONLY" and previous not in ("KEYWORD_ONLY", "VAR_POSITIONAL"):
            parts.append("*")
        star = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(kind, "")
        parts.append(f"{star}{parameter}{'=...' if has_default else ''}")
        previous = kind
    return f"{name}({', '.join(parts + ['/'] * (previous == 'POSITIONAL_ONLY'))})"


def read_parameters(stored: Sequence[Sequence[Any]], signature: str) -> list[Parameter]:
    """Return the parameters that a call can name, with annotation and default where the signature's text tells them."""
    told = _told_parameters(signature)
    return [
        Parameter(name, kind, not has_default, *told.get(name, ("", "")))
        for name, kind, has_default in stored
        if kind in _NAMEABLE and not (has_default and name.startswith("_"))
    ]


def _told_parameters(signature: str) -> dict[str, tuple[str, str]]:
    """Return {parameter: (annotation, default)} as source text; {} where the text is not Python (`<object>`)."""
    start = signature.find("(")
    try:
        function = ast.parse(f"def f{signature[start:]}: pass").body[0]
    except SyntaxError:
        return {}
    if start < 0 or not isinstance(function, ast.FunctionDef):
        return {}
    arguments = function.args
    positional = arguments.posonlyargs + arguments.args
    padded = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, padded, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return {
        argument.arg: (
            ast.unparse(argument.annotation) if argument.annotation else "",
            ast.unparse(default) if default else "",
        )
        for argument, default in pairs
    }


def draw_arguments(parameters: Sequence[Parameter], rng: random.Random) -> list[tuple[Parameter, str]]:
    """Return every required parameter and up to two optional ones, at least one in all, each with a value.

    A value is never the parameter's own name nor its default: else the copied signature would be a right answer.
    """
    required = [parameter for parameter in parameters if parameter.required]
    optional = [p for p in parameters if not p.required and p.kind != "POSITIONAL_ONLY"]
    # By position, an optional parameter can be given only if those before it are given: allow the first.
    optional += [p for p in parameters if not p.required and p.kind == "POSITIONAL_ONLY"][:1]
    least = 0 if required else 1
    wanted = min(len(optional), rng.randint(least, 2))
    chosen = {p.name for p in required} | {p.name for p in rng.sample(optional, wanted)}
    return [
        (p, write_value(p.name, p.annotation, frozenset({p.name, p.default}), rng))
        for p in parameters
        if p.name in chosen
    ]


def shown_documentation(document: Document, words: int = _DOCUMENTATION_WORDS) -> str:
    """Return the docstring's first sentences, up to so many words, on one line: no signature line, nothing from the first example on."""
    name = str(document.meta["object"])
    heads = (f"{name}(", f"{name.rpartition('.')[2]}(", "def ", "class ", "async def ", "#")
    kept: list[str] = []
    for line in document.text.splitlines():
        if line.lstrip().startswith(">>>"):
            break
        if line.strip() == name or (not "".join(kept).strip() and line.lstrip().startswith(heads)):
            continue
        kept.append(line)
        if line.rstrip().endswith("::"):  # what follows is an example
            break
    return first_sentences("\n".join(kept), words) or str(document.meta.get("summary") or "")


def _fold(summary: str) -> str:
    """Return what two summaries are compared by."""
    return collapse_spaces(summary).rstrip(".").casefold()

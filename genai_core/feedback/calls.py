"""Calls as data: read with `ast`, bound with `inspect.Signature`. Nothing is executed or imported.

Values are compared as syntax: `'a'` is "a", 0x10 is 16, `(1)` is 1; but 1 is neither 1.0 nor True, and `1 + 1` is
not 2. The request gives values as they are to be written, so another type or an expression is another answer.
"""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genai_core.feedback.answers import first_line, one_line

MAX_CHARS = 2000
MAX_DEPTH = 30


class UnreadableCallError(ValueError):
    """The text is not a call that can be judged; the message says why, on one line."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a dotted name; values as `ast.dump` text, so that equal text is equal syntax."""

    name: str
    positional: tuple[str, ...]
    keywords: Mapping[str, str]

    @property
    def values(self) -> list[str]:
        """Return all values, sorted."""
        return sorted([*self.positional, *self.keywords.values()])


def parse_call(text: str) -> Call:
    """Return the call that the text is: its first line if that parses, else the whole text (a call over many lines).

    Literal `*[...]` and `**{...}` are spread. Raises UnreadableCallError for anything but one call of a dotted name.
    """
    if not text:
        raise UnreadableCallError("The answer is empty.")
    line = first_line(text)
    try:
        node = parse_expression(line)
    except UnreadableCallError:
        if line == text:
            raise
        node = parse_expression(text)
    if not isinstance(node, ast.Call):
        raise UnreadableCallError("The answer is not a call such as module.function(argument=value).")
    return read_call(node)


def read_call(node: ast.Call) -> Call:
    """Return a syntax tree's call. Raises UnreadableCallError if it spreads a name, or calls no dotted name."""
    positional: list[str] = []
    for argument in node.args:
        positional += [dump_value(value) for value in _spread(argument)]
    keywords: dict[str, str] = {}
    for name, value in [pair for keyword in node.keywords for pair in _spread_keyword(keyword)]:
        if name in keywords:
            raise UnreadableCallError(f"The argument {one_line(name, 60)!r} is given twice.")
        keywords[name] = dump_value(value)
    return Call(_dotted_name(node.func), tuple(positional), keywords)


def parse_expression(text: str) -> ast.expr:
    """Return the expression that the text is. Raises UnreadableCallError if it is none, too long or too deep."""
    if len(text) > MAX_CHARS:
        raise UnreadableCallError(f"The answer is longer than {MAX_CHARS:,} characters.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence" and the like are the model's, not ours
            node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise UnreadableCallError(f"The answer does not parse as Python: {one_line(error.msg, 100)}.") from error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, lone surrogates; nesting beyond the parser
        raise UnreadableCallError("The answer does not parse as Python.") from error
    if _depth(node) > MAX_DEPTH:
        raise UnreadableCallError(f"The answer is nested deeper than {MAX_DEPTH} levels.")
    return node


def dump_value(node: ast.expr) -> str:
    """Return the text that is equal for equal syntax."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant):
            part.kind = None  # u'a' is 'a'
    return ast.dump(node)


def build_signature(stored: Sequence[Sequence[Any]]) -> inspect.Signature:
    """Return the signature of [[name, inspect kind, has_default], ...]; what the defaults are does not matter."""
    return inspect.Signature(
        [
            inspect.Parameter(
                name, getattr(inspect.Parameter, kind), default=None if has_default else inspect.Parameter.empty
            )
            for name, kind, has_default in stored
        ]
    )


def show_parameters(signature: inspect.Signature) -> str:
    """Return "text, width, **kwargs", cut off if it is long; "none" for no parameters."""
    stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
    shown = [stars.get(p.kind.name, "") + p.name for p in signature.parameters.values()]
    return one_line(", ".join(shown), 120) or "none"


def bind_call(call: Call, signature: inspect.Signature) -> dict[str, Any]:
    """Return {parameter: value} of what the call gives; extra arguments as tuple and dict under *args and **kwargs.

    Raises UnreadableCallError when the call does not fit: says which parameter, and which ones there are.
    """
    parameters = signature.parameters.values()
    told = f"parameters: {show_parameters(signature)}"
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        for name in call.keywords:
            if name not in named:
                only = name in signature.parameters and signature.parameters[name].kind.name == "POSITIONAL_ONLY"
                problem = f"takes {name!r} by position only" if only else f"has no parameter {one_line(name, 60)!r}"
                raise UnreadableCallError(f"{call.name} {problem}; {told}.")
    try:
        return dict(signature.bind(*call.positional, **call.keywords).arguments)
    except TypeError as error:
        raise UnreadableCallError(f"{call.name}: {one_line(str(error), 100)}; {told}.") from error


def _spread(node: ast.expr) -> list[ast.expr]:
    """Return the positional values that an argument stands for."""
    if not isinstance(node, ast.Starred):
        return [node]
    if isinstance(node.value, (ast.List, ast.Tuple)) and not any(isinstance(e, ast.Starred) for e in node.value.elts):
        return list(node.value.elts)
    raise UnreadableCallError("The call spreads a name with *, so its arguments cannot be checked.")


def _spread_keyword(keyword: ast.keyword) -> list[tuple[str, ast.expr]]:
    """Return the named values that a keyword argument stands for."""
    if keyword.arg is not None:
        return [(keyword.arg, keyword.value)]
    if isinstance(keyword.value, ast.Dict):
        pairs = list(zip(keyword.value.keys, keyword.value.values, strict=True))
        named = [(key.value, value) for key, value in pairs if isinstance(key, ast.Constant) and type(key.value) is str]
        if len(named) == len(pairs):
            return named
    raise UnreadableCallError("The call spreads a name with **, so its arguments cannot be checked.")


def _dotted_name(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise UnreadableCallError("The answer does not call a dotted name such as module.function.")
    return ".".join([node.id, *reversed(parts)])


def _depth(node: ast.AST) -> int:
    """Return the depth of a syntax tree, without recursion; stops counting beyond the limit."""
    level, depth = [node], 0
    while level and depth <= MAX_DEPTH:
        level = [child for parent in level for child in ast.iter_child_nodes(parent)]
        depth += 1
    return depth

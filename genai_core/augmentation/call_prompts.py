"""The open-book prompt of a call, written and read again.

    textwrap.shorten(text, width, **kwargs)
    Collapse and truncate the given text to fit in the given width.

    Write the call with text = 'blue sky' and width = 20.

Documentation blocks come first, each with its signature as first line; the request is the last paragraph and quotes
every value as `name = value`. What can be read back here is all that a verifier may know of a prompt without gold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

REQUESTS = (
    "Write the call with {values}.",
    "Call it with {values}.",
    "Give the call where {values}.",
    "Show how to call it with {values}.",
    "Which call passes {values}?",
    "I need the call for {values}.",
)

_DOCUMENTED = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)\(")
_ASKED = re.compile(
    r"\b([A-Za-z_]\w*) = "
    r"(b?'(?:[^'\\]|\\.)*'|b?\"(?:[^\"\\]|\\.)*\"|\[[^\]]*\]|\([^)]*\)|-?\d+(?:\.\d+)?|[A-Za-z_]\w*(?:\.\w+)*)"
)


def write_call_prompt(
    signature: str, documentation: str, arguments: Sequence[tuple[str, str]], request: str = REQUESTS[0]
) -> str:
    """Return the prompt that asks for a call.

    Args:
        signature: what stands first, "textwrap.shorten(text, width, **kwargs)".
        documentation: one line of prose; '' = none.
        arguments: (parameter, value as source text), at least one.
        request: one of `REQUESTS`.
    """
    asked = [f"{name} = {value}" for name, value in arguments]
    values = asked[0] if len(asked) == 1 else ", ".join(asked[:-1]) + " and " + asked[-1]
    return f"{signature}\n{documentation}".strip() + "\n\n" + request.format(values=values)


def documented_signatures(prompt: str) -> list[str]:
    """Return the first line of each documentation block that is a signature, in order."""
    blocks = prompt.split("\n\n")[:-1]
    lines = [block.strip().partition("\n")[0] for block in blocks]
    return [line for line in lines if _DOCUMENTED.match(line)]


def documented_names(prompt: str) -> list[str]:
    """Return the dotted names that the prompt documents, in order."""
    return [line.partition("(")[0] for line in documented_signatures(prompt)]


def asked_arguments(prompt: str) -> list[tuple[str, str]]:
    """Return the (name, value as source text) that the request, the prompt's last paragraph, quotes."""
    return _ASKED.findall(prompt.rpartition("\n\n")[2])

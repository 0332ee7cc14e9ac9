"""Small hand-made objects and pairs about them."""

from __future__ import annotations

from typing import Any

from genai_core.augmentation.call_prompts import write_call_prompt
from genai_core.data.documents import Pair

OBJECTS: dict[str, Any] = {
    "builtins.len": [["obj", "POSITIONAL_ONLY", False]],
    "len": [["obj", "POSITIONAL_ONLY", False]],
    "math.sqrt": [["x", "POSITIONAL_ONLY", False]],
    "textwrap": None,
    "textwrap.shorten": [
        ["text", "POSITIONAL_OR_KEYWORD", False],
        ["width", "POSITIONAL_OR_KEYWORD", False],
        ["kwargs", "VAR_KEYWORD", False],
    ],
    "textwrap.dedent": [["text", "POSITIONAL_OR_KEYWORD", False]],
    "textwrap.fill": [
        ["text", "POSITIONAL_OR_KEYWORD", False],
        ["width", "POSITIONAL_OR_KEYWORD", True],
        ["indent", "KEYWORD_ONLY", True],
    ],
    "os.path.join": [["a", "POSITIONAL_OR_KEYWORD", False], ["p", "VAR_POSITIONAL", False]],
    "m.nothing": [],
    "max": None,
}


def call_pair(gold: str | None, arguments: list[tuple[str, str]], signature: str) -> Pair:
    """A pair that asks for a call of the object of `signature`."""
    prompt = write_call_prompt(signature, "Some words about it.", arguments)
    return Pair("call:x:0", "call", "g", "d", prompt, gold or "", {"kind": "python_call", "gold": gold})


SHORTEN = call_pair(
    "textwrap.shorten(text='blue sky', width=20)",
    [("text", "'blue sky'"), ("width", "20")],
    "textwrap.shorten(text, width, **kwargs)",
)
FILL = call_pair(
    "textwrap.fill(text='a', width=5, indent='x')",
    [("text", "'a'"), ("width", "5"), ("indent", "'x'")],
    "textwrap.fill(text, width=70, *, indent='')",
)
JOIN = call_pair("os.path.join('a', 'b', 'c')", [("a", "'a'")], "os.path.join(a, *p)")

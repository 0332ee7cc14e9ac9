"""What of a model's text is taken as its answer, where the answer is a line of code."""

from __future__ import annotations

import re

_FENCE = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def unwrap_code(answer: str | None) -> str:
    """Return the answer without white space around it and without code fences or backticks; '' for None.

    Of several fenced blocks the first counts; what stands outside of it is talk.
    """
    text = (answer or "").strip()
    fenced = _FENCE.search(text)
    return (fenced.group(1) if fenced else text).strip().strip("`").strip()


def first_line(text: str) -> str:
    """Return the first line that is not empty, stripped of spaces and of backticks around it."""
    return next((line.strip().strip("`").strip() for line in text.splitlines() if line.strip()), "")


def one_line(text: str, limit: int = 240) -> str:
    """Return the text on one line, cut off at `limit` characters: fit for a revision prompt."""
    flat = " ".join(text[: 4 * limit].split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."

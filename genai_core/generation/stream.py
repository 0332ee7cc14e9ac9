"""The text of a completion while its tokens come.

A token may hold half a character, so text is given out only as far as the tokens spell whole ones.
"""

from __future__ import annotations

from typing import Any

BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no character, or not yet one."""


class TextStream:
    """Takes tokens, gives their text piece by piece; the pieces joined are `text`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self.text = ""
        """What has been given out."""

    @property
    def n_tokens(self) -> int:
        """Return the number of tokens taken."""
        return len(self._ids)

    def push(self, token: int) -> str:
        """Return what a further token adds to the text; '' while its last character is not whole."""
        self._ids.append(token)
        whole: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        return "" if whole.endswith(BROKEN) else self.finish(whole)

    def finish(self, whole: str) -> str:
        """Return what the whole text has beyond what has been given out."""
        piece = whole[len(self.text) :]
        self.text += piece
        return piece

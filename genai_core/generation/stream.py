"""The text of a completion while its tokens come.

A token may hold half a character, so an unfinished last character waits for the tokens that complete it. It has at most
three bytes, and decoders write one `BROKEN` for it or one for each byte; more of them are bytes that no token can mend.
"""

from __future__ import annotations

from typing import Any

BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no character, or not yet one."""
UNFINISHED = 3
"""The most bytes of a UTF-8 character that lacks its last one."""


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
        """Return what a further token adds to the text, without a last character that is not whole."""
        self._ids.append(token)
        whole: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        for _ in range(UNFINISHED):
            whole = whole.removesuffix(BROKEN)
        return self.finish(whole)

    def finish(self, whole: str) -> str:
        """Return what the whole text has beyond what has been given out."""
        piece = whole[len(self.text) :]
        self.text += piece
        return piece

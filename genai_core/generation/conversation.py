"""What was said so far, and the request for the next question: as much of it as leaves room for an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from genai_core.data.templates import holds_turns
from genai_core.generation.prompts import encode_request
from genai_core.generation.types import Request


@dataclass
class Conversation:
    """Questions and answers of one chat with a model."""

    tokenizer: Any
    longest: int | None
    """Tokens of prompt and answer that the model holds; None: no limit is known."""

    reserve: int
    """Tokens kept free for the answer."""

    remembers: bool = True
    """Whether earlier turns go into the prompt; False where the chat template has no place for them."""

    system: str = ""
    exchanges: list[tuple[str, str]] = field(default_factory=list)
    """(question, answer), all of them."""

    first: int = 0
    """Exchanges that no longer go into the prompt: the oldest, dropped for want of room."""

    def __post_init__(self) -> None:
        self.remembers = self.remembers and holds_turns(self.tokenizer, ["user", "assistant"])

    @property
    def takes_system(self) -> bool:
        """Return whether the chat template has a place for a system text."""
        return holds_turns(self.tokenizer, ["system"])

    def ask(self, row_id: str, prompt: str) -> Request:
        """Return the request for a question. The oldest exchanges are dropped until an answer has room behind it.

        A prompt that leaves no room even alone is returned all the same: the engine says so.
        """
        while True:
            request = Request(row_id=row_id, prompt=prompt, turns=self._turns())
            if self.longest is None or self.first >= len(self.exchanges) or not self.remembers:
                return request
            if len(encode_request(self.tokenizer, request)) + self.reserve <= self.longest:
                return request
            self.first += 1

    def add(self, question: str, answer: str) -> None:
        """Take in an exchange."""
        self.exchanges.append((question, answer))

    def undo(self) -> str:
        """Forget the last exchange; return its question, '' if there is none."""
        question = self.exchanges.pop()[0] if self.exchanges else ""
        self.first = min(self.first, len(self.exchanges))
        return question

    def reset(self) -> None:
        """Forget all exchanges; the system text stays."""
        self.exchanges.clear()
        self.first = 0

    def messages(self) -> list[dict[str, str]]:
        """Return everything that was said, as a list of messages."""
        said = [("system", self.system)] if self.system else []
        for question, answer in self.exchanges:
            said += [("user", question), ("assistant", answer)]
        return [{"role": role, "content": text} for role, text in said]

    def _turns(self) -> tuple[tuple[str, str], ...]:
        turns = [("system", self.system)] if self.system else []
        for question, answer in self.exchanges[self.first :] if self.remembers else []:
            turns += [("user", question), ("assistant", answer)]
        return tuple(turns)

"""What goes into generation and what comes out: plain values, so that algorithms need no model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Request:
    """One completion wanted. `row_id` with the sampling seed decides its noise, whatever the batch."""

    row_id: str
    prompt: str
    """The user's text; the chat template is put around it by the engine unless `raw`."""

    raw: bool = False
    """True: the prompt is continued as plain text, without a chat template."""

    draft: str = ""
    """An earlier answer of the assistant, for a post-hoc revision; '' = none."""

    remark: str = ""
    """What is said about the draft, as the user's next turn; '' = none."""

    turns: tuple[tuple[str, str], ...] = ()
    """(role, text) of what was said before the prompt: system, user, assistant."""

    greedy: bool = False
    """True: the likeliest token each time, whatever the sampling."""

    def to_json(self) -> dict[str, Any]:
        """Return the request as a JSON row."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion. Log-probabilities are in nats, under the model itself (temperature 1, nothing cut off)."""

    row_id: str
    text: str
    token_ids: tuple[int, ...]
    logp: float
    """Sum over the completion's tokens, the end token included where it came."""

    finish_reason: Literal["stop", "length"]
    n_prompt_tokens: int

    @property
    def n_tokens(self) -> int:
        """Return the number of generated tokens, the end token included."""
        return len(self.token_ids)

    def to_json(self) -> dict[str, Any]:
        """Return the completion as a JSON row."""
        return {**asdict(self), "token_ids": list(self.token_ids)}

    @staticmethod
    def from_json(row: dict[str, Any]) -> Completion:
        """Return the completion of a JSON row."""
        return Completion(**{**row, "token_ids": tuple(row["token_ids"])})

"""The tokens that UL2 needs of a tokenizer: three modes, sentinels for what is left out, padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

from genai_core.data.tokenizer import UL2_MODES, document_end_id
from genai_core.errors import ConfigError

SPELLINGS = ("<|sentinel_{}|>", "<extra_id_{}>")  # of a tokenizer that is trained here; T5's
OTHER_MODES = {"nlu": "[NLU]", "nlg": "[NLG]", "s2s": "[S2S]"}  # UL2's own


@dataclass(frozen=True, slots=True)
class Ul2Marks:
    """Ids of the tokens."""

    modes: Mapping[str, int]
    sentinels: tuple[int, ...]
    pad: int

    @staticmethod
    def of(tokenizer: Any) -> Ul2Marks:
        """Return a tokenizer's marks.

        Raises:
            ConfigError: it has none.
        """
        known: Mapping[str, int] = {} if tokenizer is None else tokenizer.get_vocab()
        modes = next((one for one in (UL2_MODES, OTHER_MODES) if all(name in known for name in one.values())), None)
        sentinels: list[int] = []
        for spelling in SPELLINGS:
            names = takewhile(known.__contains__, (spelling.format(number) for number in count()))
            sentinels = sentinels or [known[name] for name in names]
        if modes is None or not sentinels:
            raise ConfigError(
                f"The tokenizer has {len(sentinels)} sentinels and {'' if modes else 'no '}mode tokens, and the objective ul2 "
                "needs both. Set data.tokenizer.sentinels, to 32 for rows of 256 tokens."
            )
        pad = tokenizer.pad_token_id
        return Ul2Marks(
            {mode: known[name] for mode, name in modes.items()},
            tuple(sentinels),
            document_end_id(tokenizer) if pad is None else pad,
        )

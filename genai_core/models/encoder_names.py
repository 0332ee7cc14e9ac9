"""Which config.json is that of an encoder; told without torch, for what only plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MASKED_LM = "ForMaskedLM"

FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "modernbert")
"""`config.model_type` of the encoders whose parts are known (models/encoders.py)."""


def names_encoder(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json is that of an encoder: one with a masked-LM head, or an encoder's bare body."""
    classes = config.get("architectures") or ()
    writes = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in classes)
    return not writes and (any(name.endswith(MASKED_LM) for name in classes) or config.get("model_type") in FAMILIES)

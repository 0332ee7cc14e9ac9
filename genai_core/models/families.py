"""Any language model of a folder, by what its config says it is: a causal one, a masked one, or an encoder without a head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch

from genai_core.errors import ModelError
from genai_core.models.load import load_model, named_failure

Family = Literal["causal", "masked", "encoder"]


def family_of(path: Path) -> Family:
    """Return what kind of model a folder holds.

    Raises:
        ModelError: there is none, or its config names no architecture that we know.
    """
    config = path / "config.json"
    if not config.is_file():
        raise ModelError(f"No model in {path}: config.json is missing. Name a folder written by save_pretrained.")
    named = (json.loads(config.read_text(encoding="utf-8")).get("architectures") or [""])[0]
    if named.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal"
    if named.endswith(("ForMaskedLM", "ForPreTraining")):
        return "masked"
    if named.endswith("Model"):
        return "encoder"
    raise ModelError(f"{path} holds a {named or 'model of no named architecture'}, which is no language model.")


def load_any(path: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Family]:
    """Return the model of a folder in eval mode, with its head where it has one, and its family.

    Raises:
        ModelError: there is none, or it cannot be loaded.
    """
    family = family_of(path)
    if family == "causal":
        return load_model(path, dtype), family
    from transformers import AutoModel, AutoModelForMaskedLM

    kind = AutoModelForMaskedLM if family == "masked" else AutoModel
    with named_failure(str(path)):
        model: Any = kind.from_pretrained(str(path), dtype=dtype, local_files_only=True, trust_remote_code=False)
    return model.eval(), family

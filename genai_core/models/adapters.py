"""Low-rank adapters through peft: added with a seed, merged in float32.

    h = W0 x + (alpha / rank) * B A x        A random, B zero: at the start the adapted model is the base, bit for bit

DoRA also learns the length of every output row. Hu et al. 2021, arXiv 2106.09685; Liu et al. 2024, arXiv 2402.09353.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from genai_core.config.model import LoraAdapter
from genai_core.errors import ModelError
from genai_core.models.encoders import is_encoder

ATTENTION_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def add_adapter(model: Any, config: LoraAdapter, seed: int) -> Any:
    """Return the model with a fresh adapter; only the adapter's weights are trainable, and they are float32 or wider.

    Args:
        model: a causal transformers model.
        config: rank, scale, kind and which layers.
        seed: of the random matrix A. The global generator is left as it was.

    Raises:
        ModelError: the model has no layer that can be adapted.
    """
    from peft import LoraConfig, get_peft_model

    targets: str | list[str] = "all-linear" if config.targets == "all-linear" else ATTENTION_LAYERS
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        use_dora=config.dora,
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        task_type=None if is_encoder(model) else "CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(model, lora)
        except ValueError as error:
            raise ModelError(
                f"{type(model).__name__}: no layer for tuning.targets={config.targets!r} ({error}). "
                "Use targets 'all-linear', or tuning.kind='full'."
            ) from error
    return adapted


def merge_adapter(model: Any) -> Any:
    """Return the base model with the adapter's update added to its weights, float32 or wider.

    Merging into bfloat16 would lose a quarter of a typical update (objectives.md 8.4), so narrower weights are widened.
    """
    if next(model.parameters()).dtype in (torch.bfloat16, torch.float16):
        model = model.float()
    return model.merge_and_unload(safe_merge=True)


def save_adapter(model: Any, path: Path) -> None:
    """Write the adapter alone, as peft loads it; the same weights give the same bytes, wherever the base lay."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = ""
        if isinstance(config.target_modules, set):  # a set of strings is written in another order by every process
            config.target_modules = sorted(config.target_modules)
    model.save_pretrained(str(path), safe_serialization=True)
    (path / "README.md").unlink(missing_ok=True)  # peft's empty template; the model card is ours


def load_merged(folder: Path) -> tuple[Any, Path]:
    """Return the model of an adapter's folder, merged into its base in float32, and the folder of that base.

    Raises:
        ModelError: the adapter names no base, or not one that lies here.
    """
    from peft import PeftConfig, PeftModel

    from genai_core.models.load import load_model

    named = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path or ""
    base = Path(named).expanduser() if named else folder.absolute().parent
    if not (base / "config.json").is_file():
        raise ModelError(
            f"{folder} is an adapter to the base {named or 'that it does not name'}, which is no folder here. Write the "
            "base's folder into base_model_name_or_path of its adapter_config.json."
        )
    if not named:
        raise ModelError(f"{folder} is an adapter that is merged already in the folder above it: give {base}.")
    return merge_adapter(PeftModel.from_pretrained(load_model(base), str(folder))), base

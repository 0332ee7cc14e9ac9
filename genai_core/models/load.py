"""Models in and out of folders; the architectures, their weights' format and their loading are transformers'.

What `save_model` writes is what plain `AutoModelForCausalLM.from_pretrained` reads (an encoder:
`AutoModelForMaskedLM`): config.json, model.safetensors, generation_config.json with every stop token, tokenizer files and
chat template. The same weights give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from genai_core.config.model import Base, FolderBase, GgufBase, HubBase, ScratchBase
from genai_core.data.templates import attach_default_template, end_token_ids
from genai_core.errors import ModelError
from genai_core.models.encoder_names import names_encoder
from genai_core.models.encoders import check_encoder, is_encoder
from genai_core.models.mimetic import imitate_attention
from genai_core.models.resolve import HUB_SCHEME
from genai_core.models.scratch_encoders import make_encoder
from genai_core.storage.artifact import ArtifactRef


def init_scratch(base: ScratchBase, tokenizer: Any) -> Any:
    """Return a model with seeded random weights, float32; the global random state is left as it was.

    Args:
        base: sizes and seed.
        tokenizer: gives the vocabulary's size and the ids of special tokens.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    if base.architecture != "llama":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(base.seed)
            return make_encoder(base, tokenizer)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=base.d_model,
        intermediate_size=base.d_ff,
        num_hidden_layers=base.n_layers,
        num_attention_heads=base.n_heads,
        num_key_value_heads=base.n_kv_heads,
        max_position_embeddings=base.max_seq_len,
        tie_word_embeddings=base.tie_embeddings,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(base.seed)
        model = LlamaForCausalLM(config)
        if base.init == "mimetic":
            imitate_attention(model)
    set_stop_tokens(model, tokenizer)
    return model


def load_model(path: Path | str, dtype: torch.dtype = torch.float32) -> Any:
    """Return the model of a folder, in eval mode: one that writes text; where an encoder will do, see `families.load_any`.

    Args:
        path: written by `save_pretrained`.
        dtype: of the weights in memory, whatever they have on disk.

    Raises:
        ModelError: there is no model, or it cannot be loaded, or it is an encoder.
    """
    file = Path(path) / "config.json"
    if not file.is_file():
        raise ModelError(f"No model in {path}: config.json is missing. Name a folder written by save_pretrained.")
    with named_failure(str(path)):
        config = json.loads(file.read_text(encoding="utf-8"))
    if names_encoder(config):
        raise ModelError(
            f"{path} is an encoder ({', '.join(config.get('architectures') or [config.get('model_type')])}): it fills in hidden "
            "tokens, but cannot write text, as this asks. Use a decoder (Llama, SmolLM), or stop after pre-training: "
            "the flow 'pretraining' does."
        )
    with named_failure(str(path)):
        return _load({"pretrained_model_name_or_path": str(path), "local_files_only": True}, encoder=False, dtype=dtype)


def load_base(base: Base, ref: ArtifactRef) -> tuple[Any, Any | None]:
    """Return a base model, float32, and the tokenizer that comes with it, or None if it has none.

    Args:
        base: not from scratch; see `init_scratch`.
        ref: what `resolve_base` made of it: the exact commit, folder or file.

    Raises:
        ModelError: it cannot be loaded, or the tokenizer has more entries than the model has embeddings.
    """
    from transformers import PretrainedConfig

    places = _places(base, ref)
    with named_failure(ref.uri):
        encoder = not isinstance(base, GgufBase) and names_encoder(PretrainedConfig.get_config_dict(**places)[0])
        model = _load(places, encoder=encoder, dtype=torch.float32)
    _forget_gguf(model)
    tokenizer = load_base_tokenizer(base, ref)
    if tokenizer is not None:
        check_vocabulary(model, tokenizer)
        set_stop_tokens(model, tokenizer)
    return model.eval(), tokenizer


def _load(places: dict[str, Any], *, encoder: bool, dtype: torch.dtype) -> Any:
    """Return the model at a place, in eval mode; an encoder whose head was left out gets a seeded one."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    if not encoder:
        return AutoModelForCausalLM.from_pretrained(**places, dtype=dtype, trust_remote_code=False).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_pretrained(**places, dtype=dtype, trust_remote_code=False).eval()
    check_encoder(model)
    return model


def load_base_tokenizer(base: Base, ref: ArtifactRef) -> Any:
    """Return the tokenizer that comes with a base model, with a chat template (a plain one where it has none).

    Raises:
        ModelError: there is none, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    with named_failure(ref.uri):
        tokenizer: Any = AutoTokenizer.from_pretrained(**_places(base, ref), trust_remote_code=False)
    attach_default_template(tokenizer)
    return tokenizer


def save_model(model: Any, tokenizer: Any, path: Path) -> None:
    """Write a model and its tokenizer as a folder that plain transformers loads; the same weights give the same bytes."""
    set_stop_tokens(model, tokenizer)
    # where it was loaded from is no part of what it is
    model.config._name_or_path = ""
    model.save_pretrained(path, safe_serialization=True)
    tokenizer.save_pretrained(path)


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Raise ModelError if the tokenizer makes ids for which the model has no embedding."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"The tokenizer has {len(tokenizer):,} entries, but the model only {rows:,} embeddings. "
            "They do not belong together: use the tokenizer that the model was trained with (data.tokenizer.kind='base')."
        )


def set_stop_tokens(model: Any, tokenizer: Any) -> None:
    """Make plain `generate` stop where ours does: at the end-of-text and at the chat template's end-of-turn token.

    An encoder does not generate.
    """
    if is_encoder(model):
        return
    stops = end_token_ids(tokenizer)
    model.generation_config.eos_token_id = stops if len(stops) > 1 else next(iter(stops), None)
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.pad_token_id = (
        tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    )


def _places(base: Base, ref: ArtifactRef) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that name a base model."""
    match base:
        case HubBase():
            repo, _, revision = ref.uri.removeprefix(HUB_SCHEME).rpartition("@")
            return {"pretrained_model_name_or_path": repo, "revision": revision}
        case FolderBase():
            return {"pretrained_model_name_or_path": ref.uri, "local_files_only": True}
        case GgufBase():
            file = Path(ref.uri)
            return {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name, "local_files_only": True}
        case ScratchBase():
            raise ModelError("base.kind='scratch' has no weights and no tokenizer to load; use init_scratch.")


def _forget_gguf(model: Any) -> None:
    """Take the quantisation mark off a model read from GGUF: its weights are plain float32 now.

    transformers refuses `save_pretrained` with the mark on, and would write it into config.json.
    """
    if getattr(model, "quantization_method", None) != "gguf":
        return
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        if name in vars(model):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config._name_or_path = ""


@contextmanager
def named_failure(what: str) -> Iterator[None]:
    """Turn the many ways in which loading fails into one ModelError that names the model."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(f"The model {what} cannot be loaded: {first}") from error

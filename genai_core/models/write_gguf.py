"""A Llama-type model as one GGUF file, as llama.cpp reads it.

    weights   blk.N.attn_q and friends (names by the gguf package); rows of q and k reordered, because llama.cpp turns
              neighbouring pairs (x0, x1) where transformers turns halves (x0, x_{d/2})
    dtype     matrices in f32, f16, bf16 or q8_0 (blocks of 32 numbers with one scale); vectors always f32
    config    under llama.*, tokenizer under tokenizer.* (gguf_tokenizer.py), licence and name under general.*

The rotation: Su et al. 2021, arXiv 2104.09864. The order of rows: `permute` in llama.cpp, conversion/llama.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genai_core.errors import ModelError
from genai_core.models.gguf_tokenizer import tokenizer_fields

DTYPES = ("f32", "f16", "bf16", "q8_0")
BLOCK = 32
"""Numbers of a row that share a scale in q8_0."""

BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}


def check_writable(model: Any) -> None:
    """Raise ModelError naming what of a model llama.cpp's Llama would not compute as transformers does."""
    config = model.config
    if type(model).__name__ != "LlamaForCausalLM":
        raise ModelError(
            f"{type(model).__name__} cannot be written as GGUF here; LlamaForCausalLM can (models from scratch, SmolLM2, "
            "and others of this type). Use --to hf, and llama.cpp's own convert_hf_to_gguf.py on that folder."
        )
    rope = dict(config.rope_parameters or {})
    odd = [
        f"{name}={value!r}"
        for name, value, usual in (
            ("hidden_act", config.hidden_act, "silu"),
            ("attention_bias", config.attention_bias, False),
            ("mlp_bias", config.mlp_bias, False),
            ("rope_type", rope.get("rope_type", "default"), "default"),
        )
        if value != usual
    ]
    if odd:
        raise ModelError(f"A Llama with {', '.join(odd)} cannot be written as GGUF here. Use --to hf.")


def write_gguf(model: Any, tokenizer: Any, file: Path, dtype: str, *, name: str, license_id: str = "") -> list[str]:
    """Write the file; return the names of matrices that were kept wider, because a row is no whole number of blocks.

    Args:
        model: LlamaForCausalLM on the CPU, float32.
        tokenizer: byte-level BPE with one of the rules of gguf_tokenizer.py.
        dtype: one of DTYPES.
        name: shown by llama.cpp.
        license_id: SPDX id; '' leaves the field out.

    Raises:
        ModelError: the model or its tokenizer cannot be written.
    """
    import gguf

    check_writable(model)
    config = model.config
    rows = model.get_input_embeddings().weight.shape[0]
    told = tokenizer_fields(tokenizer, rows)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name(name)
    if license_id:
        writer.add_license(license_id)
    head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
    writer.add_file_type(getattr(gguf.LlamaFileType, "ALL_F32" if dtype == "f32" else f"MOSTLY_{dtype.upper()}"))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(rows)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    _add_tokenizer(writer, told, tokenizer.chat_template)
    wider = []
    for tensor, values in named_tensors(model):
        kept, kind = encode(values, dtype)
        if values.ndim > 1 and kind.name.lower() != dtype:
            wider.append(tensor)
        writer.add_tensor(tensor, kept, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return wider


def named_tensors(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every weight under llama.cpp's name, float32, q and k reordered; a tied output projection is left out."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    config = model.config
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for key, weight in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ModelError(f"llama.cpp has no place for the weight {key!r}. Use --to hf.")
        values = weight.detach().to(torch.float32).numpy()
        if ".attn_q." in name:
            values = pair_neighbours(values, config.num_attention_heads)
        elif ".attn_k." in name:
            values = pair_neighbours(values, config.num_key_value_heads)
        yield name, values


def pair_neighbours(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return the rows of a q or k projection in llama.cpp's order: of each head 0, d/2, 1, d/2 + 1, ...

    Args:
        weight: (heads * d, D), rows of a head in transformers' order.
    """
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def encode(values: np.ndarray, dtype: str) -> tuple[np.ndarray, Any]:
    """Return a tensor's bytes and its gguf type: vectors in f32, rows that are no whole blocks in f16 instead of q8_0."""
    from gguf import GGMLQuantizationType, quants

    kind = GGMLQuantizationType[dtype.upper()]
    if values.ndim == 1:
        kind = GGMLQuantizationType.F32
    elif kind is GGMLQuantizationType.Q8_0 and values.shape[-1] % BLOCK:
        kind = GGMLQuantizationType.F16
    return quants.quantize(np.ascontiguousarray(values), kind), kind


def round_weights(model: Any, dtype: str) -> None:
    """Give a model the numbers that a file of this dtype holds, in place: what reading it back must compute with."""
    from gguf import quants

    seen: set[int] = set()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.data_ptr() not in seen:
                seen.add(weight.data_ptr())
                kept, kind = encode(weight.detach().to(torch.float32).numpy(), dtype)
                weight.copy_(torch.from_numpy(np.array(quants.dequantize(kept, kind), dtype=np.float32)))


def _add_tokenizer(writer: Any, told: dict[str, Any], chat_template: str | None) -> None:
    writer.add_tokenizer_model(told["model"])
    writer.add_tokenizer_pre(told["pre"])
    writer.add_token_list(told["tokens"])
    writer.add_token_types(told["token_type"])
    writer.add_token_merges(told["merges"])
    for key in ("bos_token_id", "eos_token_id", "eot_token_id", "unknown_token_id", "padding_token_id"):
        if key in told:
            writer.add_uint32(f"tokenizer.ggml.{key}", told[key])
    writer.add_add_bos_token(told["add_bos_token"])
    writer.add_add_eos_token(told["add_eos_token"])
    if chat_template:
        writer.add_chat_template(chat_template)

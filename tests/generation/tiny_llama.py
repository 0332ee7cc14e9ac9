"""A random Llama and the words it knows: small enough for every test, real enough to have a cache."""

from __future__ import annotations

import random

import torch
from transformers import LlamaConfig, LlamaForCausalLM

WORDS = (
    "open",
    "file",
    "read",
    "write",
    "close",
    "path",
    "name",
    "line",
    "text",
    "value",
    "list",
    "dict",
    "sort",
    "join",
)


def sentence(seed: int, words: int) -> str:
    """Return so many words, the same for the same seed."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def build_model(tokenizer, dtype=torch.float32, seed=0, **changes):
    """Return a random two-layer Llama with grouped heads; weights large enough that rows differ in what they say."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "initializer_range": 0.3,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **changes,
        }
    )
    return LlamaForCausalLM(config).to(dtype).eval()

"""A decoder and an encoder of two layers with random weights, and labelled texts whose words hang on the label."""

from __future__ import annotations

import random
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from genai_core.data.tokenizer import train_tokenizer
from genai_core.models.backbone import keep_float64
from genai_core.models.families import Family
from genai_core.representations.states import Text, encode

WORDS = {
    0: ("river", "stone", "cloud", "garden"),
    1: ("letter", "silver", "window", "paper"),
    2: ("summer", "candle", "bridge"),
}
COMMON = ("the", "of", "and", "is", "was", "here")
MODELS = ("llama", "gpt2", "bert")


def labelled_texts(n: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Return texts of 4 to 20 words, two in three of them common, and their labels."""
    source = random.Random(seed)
    labels = [source.choice((0, 0, 1, 2)) for _ in range(n)]
    texts = [
        " ".join(
            source.choice(COMMON if source.random() < 0.67 else WORDS[label]) for _ in range(source.randint(4, 20))
        )
        for label in labels
    ]
    return texts, labels


def build(kind: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Any, Family]:
    """Return a model, its tokenizer and its family."""
    tokenizer = train_tokenizer(labelled_texts(200)[0], 320, 64)
    torch.manual_seed(0)
    common = {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    family: Family = "causal"
    if kind == "llama":
        model: Any = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=24,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                initializer_range=0.3,
                **common,
            )
        )
    elif kind == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(n_embd=24, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3, **common)
        )
    else:
        family = "masked"
        tokenizer.add_special_tokens({"cls_token": "<|user|>", "sep_token": "<|end|>"})
        model = BertForMaskedLM(
            BertConfig(
                hidden_size=24,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=64,
                initializer_range=0.3,
                **common,
            )
        )
    model = model.to(dtype).eval()
    if dtype == torch.float64:
        keep_float64(model)
    return model, tokenizer, family


def encoded(kind: str, n: int = 120, dtype: torch.dtype = torch.float64) -> tuple[Any, list[Text], list[int]]:
    """Return a model and labelled texts as it reads them."""
    model, tokenizer, family = build(kind, dtype)
    texts, labels = labelled_texts(n)
    return model, encode(tokenizer, family, texts, 32), labels

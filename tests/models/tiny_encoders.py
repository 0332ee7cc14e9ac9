"""Encoders of a few thousand weights, one of each family, as transformers makes them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

VOCAB = 61
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES = ("bert", "roberta", "distilbert", "electra", "modernbert")
PAD = 1


def tiny_encoder(family: str, dtype: torch.dtype = torch.float64, *, seed: int = 0, **more: Any) -> Any:
    """Return an encoder without dropout, its biases random too: a bias of zeros would hide a bias that is left out."""
    shared = {"vocab_size": VOCAB, "max_position_embeddings": 66, "pad_token_id": PAD, "initializer_range": 0.1, **more}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any
        match family:
            case "bert":
                model = BertForMaskedLM(BertConfig(**SIZES, **shared, **quiet))
            case "roberta":
                model = RobertaForMaskedLM(RobertaConfig(**SIZES, **shared, **quiet, type_vocab_size=1))
            case "electra":
                model = ElectraForMaskedLM(ElectraConfig(**SIZES, **shared, **quiet, embedding_size=16))
            case "distilbert":
                sizes = {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 2}
                model = DistilBertForMaskedLM(DistilBertConfig(**sizes, **shared, dropout=0.0, attention_dropout=0.0))
            case "modernbert":
                # the second of three layers sees 3 tokens to either side
                special = {"cls_token_id": 0, "sep_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
                model = ModernBertForMaskedLM(
                    ModernBertConfig(**{**SIZES, "num_hidden_layers": 3}, **shared, **special, local_attention=6)
                )
            case _:
                raise ValueError(family)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.3)
    return model.to(dtype).eval()

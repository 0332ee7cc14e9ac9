"""Encoders with random weights, in the sizes of a scratch base: configurations of transformers' own classes.

Dropout is off, as everywhere here unless a base brings it. A text's positions are 0 to max_seq_len - 1; RoBERTa's table is
longer by the places that it keeps for padding.
"""

from __future__ import annotations

from typing import Any

from genai_core.config.model import ScratchBase

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make_encoder(base: ScratchBase, tokenizer: Any) -> Any:
    """Return an encoder with a masked-LM head, float32; its weights are drawn from torch's global random state.

    Args:
        base: of an architecture that is one.
        tokenizer: gives the vocabulary's size and the id of padding.
    """
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        ModernBertConfig,
        ModernBertForMaskedLM,
        RobertaConfig,
        RobertaForMaskedLM,
    )

    padding = tokenizer.pad_token_id or 0
    shared: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": base.d_model,
        "intermediate_size": base.d_ff,
        "num_hidden_layers": base.n_layers,
        "num_attention_heads": base.n_heads,
        "max_position_embeddings": base.max_seq_len,
        "tie_word_embeddings": base.tie_embeddings,
        "pad_token_id": padding,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "dtype": "float32",
    }
    match base.architecture:
        case "bert":
            return BertForMaskedLM(BertConfig(**{**shared, **NO_DROPOUT}))
        case "roberta":
            table = base.max_seq_len + padding + 1
            return RobertaForMaskedLM(
                RobertaConfig(**{**shared, **NO_DROPOUT, "max_position_embeddings": table, "type_vocab_size": 1})
            )
        case "modernbert":
            ends = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
            return ModernBertForMaskedLM(ModernBertConfig(**{**shared, **ends}))
        case "llama":
            raise ValueError("a llama is no encoder")

"""A Llama of a hundred thousand weights that learns a small world's words through the real engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from genai_core.config.objectives import CausalLm
from genai_core.config.training import AdamW, Cosine, TrainingConfig
from genai_core.data.packing import pack_examples
from genai_core.models.mimetic import imitate_attention
from tests.training.small_run import run_small


def train_word_llama(
    folder: Path,
    examples: Sequence[tuple[list[int], list[int]]],
    *,
    vocab: int,
    end: int,
    seq_len: int,
    rows: int,
    steps: int,
    seed: int,
    layers: int = 2,
    learning_rate: float = 3e-3,
) -> Any:
    """Return the model, ready to be asked.

    Args:
        folder: of the run.
        examples: tokens, and which of them are learned.
        vocab: words.
        end: the word that ends an answer.
        seq_len: tokens of a row.
        rows: of a step.
        steps: of the training.
        seed: of weights and order.
        layers: of the model.
        learning_rate: of AdamW, at its height.
    """
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=end,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        imitate_attention(model)
    training = TrainingConfig(
        steps=steps,
        global_batch_tokens=rows * seq_len,
        seq_len=seq_len,
        objective=CausalLm(),
        optimizer=AdamW(learning_rate=learning_rate, weight_decay=0.0),
        schedule=Cosine(),
        checkpoint_every_steps=steps,
        evaluate_every_steps=steps,
        seed=seed,
    )
    run_small(folder, model, training, rows=pack_examples(examples, seq_len), micro_batch_rows=rows)
    return model.eval()

"""How far a process grows in one step, with and without activation checkpointing. Prints one line of JSON.

python peak_memory.py keep|recompute LAYERS WIDTH TOKENS ROWS
"""

import json
import sys
import time

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from genai_core.config.objectives import CausalLm
from genai_core.data.order import noise_of_rows
from genai_core.data.packing import pack_documents
from genai_core.models.process_memory import forget_peak, peak_bytes, return_freed_memory
from genai_core.models.recompute import recompute_layers
from genai_core.objectives.registry import build_objectives
from genai_core.training.parallel import Group
from genai_core.training.rows import take_batch
from genai_core.training.step import accumulate_gradients

VOCAB = 512


def main(flag: str, layers: int, width: int, tokens: int, rows: int) -> None:
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=tokens,
        tie_word_embeddings=True,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).train()
    if flag == "recompute":
        recompute_layers(model)
    ids = np.random.Generator(np.random.PCG64(0)).integers(2, VOCAB, (rows, tokens)).tolist()
    batch = take_batch(pack_documents(ids, tokens, 1), range(rows), noise_of_rows(range(rows)), torch.device("cpu"))
    objectives = build_objectives(CausalLm())
    group = Group(0, 1, torch.device("cpu"))

    def step(part):
        return accumulate_gradients(model, objectives, [part], group=group, precision="float32", seeds=[0]).loss

    step({name: tensor[:1, :16] for name, tensor in batch.items() if tensor.ndim == 2})  # what libraries prepare once
    return_freed_memory()
    forget_peak()
    before, started = peak_bytes(), time.monotonic()
    loss = step(batch)
    seconds = time.monotonic() - started
    found = {"grown_bytes": peak_bytes() - before, "seconds": round(seconds, 2), "loss": loss}
    print(json.dumps({**found, "weights_bytes": 4 * sum(one.numel() for one in model.parameters())}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

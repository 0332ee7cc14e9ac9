"""Time to the first token of an answer about a document: read again, or remembered since it was embedded.

    python -m genai_core.generation.remembered_bench --model FOLDER --tokens 250 1000 2000 --json remembered.json

Seconds of processor time (a busy machine does not lengthen it), best of some rounds in turn; a question of 16 tokens. Without a
model: one of SmolLM2-135M's sizes with random weights, whose speed is the same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from genai_core.config.objectives import Contrastive
from genai_core.generation.encoding import Encoder
from genai_core.generation.remembered import Remembered, read_on, states_of
from genai_core.models.load import load_model

QUESTION_TOKENS = 16


def measure(model: Any, tokens: int, rounds: int) -> dict[str, float]:
    """Return seconds to embed a document of so many tokens, to the first token from it, and to that when it is read again."""
    from transformers import DynamicCache

    encoder = Encoder(model, None, Contrastive())
    vocabulary = model.get_input_embeddings().weight.shape[0]
    drawn = torch.randint(vocabulary, (tokens + QUESTION_TOKENS,), generator=torch.Generator().manual_seed(0)).tolist()
    document, question = drawn[:tokens], drawn[tokens:]
    best = {"embed": float("inf"), "remembered": float("inf"), "read_again": float("inf")}
    size = 0
    for _ in range(rounds):
        cache = DynamicCache()
        started = time.process_time()
        vector = encoder.vector_of(document, 1, cache)
        best["embed"] = min(best["embed"], time.process_time() - started)
        before = Remembered(vector, tuple(document), states_of(cache))
        size = before.n_bytes()
        for name, cached in (("remembered", True), ("read_again", False)):
            started = time.process_time()
            read_on(model, before, question, cached=cached)
            best[name] = min(best[name], time.process_time() - started)
    return {
        "document_tokens": tokens,
        **{f"{name}_seconds": round(seconds, 4) for name, seconds in best.items()},
        "megabytes": round(size / 1e6, 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each length, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model; none = random weights")
    parser.add_argument("--tokens", type=int, nargs="+", default=[250, 1000, 2000], help="lengths of the document")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    model = load_model(given.model) if given.model else _random_model()
    rows = [measure(model, tokens, given.rounds) for tokens in given.tokens]
    for row in rows:
        print(json.dumps(row))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _random_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


if __name__ == "__main__":
    main()

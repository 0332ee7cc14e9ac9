"""A library whose names only its documents tell, a model of a hundred thousand weights, and the real engine.

    document    doc topic7 named syl3 syl20 syl11
    question    how topic7                             answer    syl3 syl20 syl11

Every release gives all forty APIs other names, three syllables out of thirty: what was learned by heart is wrong in the next.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from word_llama import train_word_llama

from genai_core.data.bm25 import Bm25Index
from genai_core.data.documents import Pair

TOPICS = [f"topic{n}" for n in range(40)]
SYLLABLES = [f"syl{n}" for n in range(30)]
WORDS = ["pad", "end", "doc", "named", "how", *TOPICS, *SYLLABLES]
IDS = {word: at for at, word in enumerate(WORDS)}
SEQ_LEN = 64


def release(number: int) -> tuple[list[Pair], Bm25Index]:
    """Return the questions about a release of the library, and the index of its documents; every one has other names."""
    rng = random.Random(f"release {number}")
    names = {topic: " ".join(rng.sample(SYLLABLES, 3)) for topic in TOPICS}
    pairs = [Pair(f"{topic}@{number}", "api", topic, topic, f"how {topic}", name) for topic, name in names.items()]
    return pairs, Bm25Index({topic: f"doc {topic} named {name}" for topic, name in names.items()})


def encode(text: str) -> list[int]:
    return [IDS[word] for word in text.split()]


def train_model(folder: Path, pairs: Sequence[Pair], steps: int, seed: int, layers: int = 2) -> Any:
    """Return a small Llama after `steps` of the real engine on prompts whose answers alone carry a loss.

    Two layers find the right document within 800 steps; three had not begun to by then (0.32 beside one wrong document).
    """
    examples = []
    for pair in pairs:
        prompt, answer = encode(pair.prompt), [*encode(pair.completion), IDS["end"]]
        examples.append(([*prompt, *answer], [0] * len(prompt) + [1] * len(answer)))
    return train_word_llama(
        folder,
        examples,
        vocab=len(WORDS),
        end=IDS["end"],
        seq_len=SEQ_LEN,
        rows=16,
        steps=steps,
        seed=seed,
        layers=layers,
    )


@torch.inference_mode()
def answers(model: Any, pairs: Sequence[Pair]) -> list[str]:
    """Return the greedy answers; prompts of equal length are asked together."""
    found: dict[int, str] = {}
    lengths: dict[int, list[int]] = {}
    for at, pair in enumerate(pairs):
        lengths.setdefault(len(pair.prompt.split()), []).append(at)
    for places in lengths.values():
        ids = torch.tensor([encode(pairs[at].prompt) for at in places])  # (B, T)
        start = ids.shape[1]
        for _ in range(4):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        for at, row in zip(places, ids[:, start:].tolist(), strict=True):
            found[at] = " ".join(WORDS[token] for token in row).partition(" end")[0]
    return [found[at] for at in range(len(pairs))]


def share_right(model: Any, pairs: Sequence[Pair]) -> float:
    return sum(a == pair.completion for a, pair in zip(answers(model, pairs), pairs, strict=True)) / len(pairs)

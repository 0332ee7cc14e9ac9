"""One small model that searches and writes: both at once, and each lost without its own half of the objective.

Words come in pairs of a known and a foreign word. A query is three foreign words, its document the same three known ones in another
order. A chat is two known words, answered by the two foreign ones. Queries and chats that are measured were never trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import SEQ_LEN, MemoryLog, alone, run_small, small_config, small_model

from genai_core.config.objectives import CausalLm, Contrastive, MixedDataset, Mixture, MixtureTerm
from genai_core.config.training import AdamW
from genai_core.data.collate import collate
from genai_core.data.mixing import MixedRows
from genai_core.data.packing import PackedRows, pack_examples, pack_groups
from genai_core.objectives.base import IGNORE_INDEX
from genai_core.objectives.registry import build_objectives
from genai_core.training.step import accumulate_gradients, run_forward

WORDS = 24
EMBED, CHAT = 2, 3
KNOWN, FOREIGN = 4, 4 + WORDS
EMBEDDING = Contrastive(temperature=0.05, negatives=0)
SHARES = {"pairs": 0.5, "retrieval": 0.5}


def retrieval_rows(count: int, rng: np.random.Generator, *, taken: set[frozenset[int]]) -> PackedRows:
    groups = []
    while len(groups) < count:
        words = rng.choice(WORDS, 3, replace=False)
        if frozenset(words.tolist()) in taken:
            continue
        taken.add(frozenset(words.tolist()))
        query, document = FOREIGN + words, KNOWN + rng.permutation(words)
        groups.append([([EMBED, *one.tolist()], [0, 1, 1, 1]) for one in (query, document)])
    return pack_groups(groups, SEQ_LEN, pad_id=0)


def chats(rng: np.random.Generator) -> tuple[PackedRows, PackedRows]:
    """Return rows to train on, and rows of other pairs of words."""
    order = rng.permutation(WORDS * WORDS)
    made = [
        ([CHAT, KNOWN + a, KNOWN + b, FOREIGN + a, FOREIGN + b], [0, 0, 0, 1, 1])
        for a, b in (divmod(int(one), WORDS) for one in order)
    ]
    return pack_examples(made[100:], SEQ_LEN), pack_examples(made[:100], SEQ_LEN)


def mixture(search: float, write: float) -> Mixture:
    """Return the joint objective; a weight of 0 leaves a half out, on the same rows in the same order."""
    return Mixture(
        datasets=tuple(MixedDataset(name=name, rows=share) for name, share in SHARES.items()),
        terms=(
            MixtureTerm(objective=CausalLm(), dataset="pairs", weight=write),
            MixtureTerm(objective=EMBEDDING, dataset="retrieval", weight=search),
        ),
    )


def learned(folder: Path, objective: Mixture, steps: int, seed: int) -> tuple[float, float]:
    """Return recall@1 among 100 documents and the share of right words in answers, both of what was never trained on."""
    rng = np.random.default_rng(seed)
    taken: set[frozenset[int]] = set()
    asked, seen = retrieval_rows(100, rng, taken=taken), retrieval_rows(1000, rng, taken=taken)
    answers, unseen = chats(rng)
    model = small_model(torch.float32, seed=seed)
    config = small_config(
        objective=objective,
        steps=steps,
        global_batch_tokens=64 * SEQ_LEN,
        optimizer=AdamW(learning_rate=1e-2, weight_decay=0.0),
        checkpoint_every_steps=steps,
        evaluate_every_steps=steps,
        seed=seed,
    )
    rows = MixedRows({"pairs": answers, "retrieval": seen}, SHARES)
    run_small(folder, model, config, rows=rows, micro_batch_rows=64, log=MemoryLog())
    model.eval()
    found = accumulate_gradients(
        model,
        build_objectives(EMBEDDING),
        [collate(asked.take(range(len(asked))))],
        group=alone(),
        precision="float32",
        seeds=[0],
    )
    batch = collate(unseen.take(range(len(unseen))))
    with torch.no_grad():
        hidden = run_forward(model, [one.objective for one in build_objectives(CausalLm())], batch, "float32")["hidden"]
        guess = model.get_output_embeddings()(hidden)[:, :-1].argmax(-1)
    labels = batch["labels"][:, 1:]
    right = (guess == labels)[labels != IGNORE_INDEX].double().mean()
    return found.metrics["contrastive_accuracy"], float(right)


@pytest.mark.worlds
@pytest.mark.parametrize("seed", [0, 1])
def test_one_model_searches_and_writes_and_each_half_is_needed(tmp_path: Path, seed: int) -> None:
    joint = learned(tmp_path / "joint", mixture(1.0, 1.0), 300, seed)
    no_search = learned(tmp_path / "no search", mixture(0.0, 1.0), 300, seed)
    no_writing = learned(tmp_path / "no writing", mixture(1.0, 0.0), 300, seed)
    print(f"recall@1 and right words: joint {joint}, without search {no_search}, without writing {no_writing}")
    assert min(joint) > 0.9
    assert no_search[1] > 0.9 and no_search[0] < 0.2, "chance is 0.01"
    assert no_writing[0] > 0.9 and no_writing[1] < 0.2, "chance is 0.04"

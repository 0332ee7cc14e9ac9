"""Classes that only a word tells, labels that only the exemplars tell, a model of a hundred thousand weights, the real engine.

    f3 t1a AQJ    f9 t4b 8412    f3 t1b AQJ    f0 t4a 8412   f7 t4a   ->   2 1 4 8

Every topic has two words; which belong together is told nowhere. Labels are the paper's three kinds of symbols: drawn anew for
every prompt, or each topic's own for good. The layouts' words ("Input:", "Label:", ...) are not shown, so that a label follows
its text at once. All labels whose class was shown before are learned, with the gap behind them, not the last alone.

A held-out symbol is one letter, digit or syllable longer than those of the training. Of three kinds, which differ in length, a
model learns to copy a label however long; of letters alone, nearly all of three, it learns places, and fails at four.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from word_llama import train_word_llama

from genai_core.augmentation.symbol_tuning import LAYOUTS, symbol_pairs
from genai_core.config.data import SymbolPairs
from genai_core.data.documents import Document, Pair

TOPICS, FILLERS, TEXTS = 8, 20, 20
CLASSES = 2
"""In a prompt: chance is 1 in CLASSES."""

SEQ_LEN = 40
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TOPIC_WORDS = [[f"t{topic}{word}" for word in "ab"] for topic in range(TOPICS)]
WORDS = [
    "end",
    "gap",
    *LETTERS,
    *"0123456789",
    *(f"f{n}" for n in range(FILLERS)),
    *(word for words in TOPIC_WORDS for word in words),
]
TEXT_WORDS = {word for word in WORDS if len(word) > 1}
IDS = {word: at for at, word in enumerate(WORDS)}
LAYOUT_WORDS = {word for shape, _ in LAYOUTS for word in shape.replace("{text}", " ").split()}


def prompts(seed: int, labels: Literal["symbols", "natural"], *, held_out: bool, per_text: int = 600) -> list[Pair]:
    """Return the builder's prompts over one side's texts, so many that ask for each; of held-out ones, every setting once."""
    side = "held-out" if held_out else "train"
    texts, names = random.Random(f"{seed}/{side}"), random.Random(seed)
    own = ["".join(names.sample(LETTERS, 3)) for _ in range(TOPICS)]
    documents = []
    for topic, words in enumerate(TOPIC_WORDS):
        for number in range(TEXTS):
            text = f"f{texts.randrange(FILLERS)} {texts.choice(words)}"
            name = f"{side}-{topic}-{number}"
            documents.append(
                Document(f"w:{name}", name, "", text, meta={"fields": {"text": text, "label": own[topic]}})
            )
    how = SymbolPairs(
        labels=labels,
        min_exemplars=2,
        max_exemplars=2,
        eval_exemplars=2,
        max_classes=CLASSES,
        prompts_per_text=per_text,
    )
    return symbol_pairs(documents, how, seed, held_out=held_out)


def jumbled(pair: Pair, seed: int) -> Pair:
    """Return a prompt whose exemplars carry the same labels in another order: they tell no rule."""
    shown, asked = _exemplars(pair)
    labels = [label for _, label in shown]
    random.Random(f"{seed}/{pair.pair_id}").shuffle(labels)
    return _written(pair, [(text, label) for (text, _), label in zip(shown, labels, strict=True)], asked)


def turned(pair: Pair) -> Pair:
    """Return a prompt in which every class has the next one's label; so has the right answer."""
    names = pair.check["candidates"]
    turn = dict(zip(names, [*names[1:], names[0]], strict=True))
    shown, asked = _exemplars(pair)
    other = _written(pair, [(text, turn[label]) for text, label in shown], asked)
    return replace(other, completion=turn[pair.completion])


def _exemplars(pair: Pair) -> tuple[list[tuple[str, str]], str]:
    *shown, asked = pair.prompt.split("\n\n")
    return [(text, label) for text, _, label in (one.rpartition("\n") for one in shown)], asked


def _written(pair: Pair, shown: Sequence[tuple[str, str]], asked: str) -> Pair:
    return replace(pair, prompt="\n\n".join([*(f"{text}\n{label}" for text, label in shown), asked]))


def encode(text: str) -> list[int]:
    """Return the tokens of a text or a label; of a label its characters, the last first: that is any, the first A to N."""
    words = [word for word in text.split() if word not in LAYOUT_WORDS]
    return [IDS[token] for word in words for token in ([word] if word in TEXT_WORDS else reversed(word.upper()))]


def encode_prompt(pair: Pair) -> list[int]:
    """Return the tokens of a prompt, up to where the answer begins."""
    shown, asked = _exemplars(pair)
    return [
        *(token for text, label in shown for token in [*encode(text), *encode(label), IDS["gap"]]),
        *encode(asked),
    ]


def encode_pair(pair: Pair) -> tuple[list[int], list[int]]:
    """Return the tokens of a prompt with its answer, and which are learned: labels of a class that was shown before."""
    ids: list[int] = []
    mask: list[int] = []
    shown, asked = _exemplars(pair)
    before: set[str] = set()
    for text, label in [*shown, (asked, pair.completion)]:
        words, letters = encode(text), encode(label)
        ids += [*words, *letters, IDS["gap"]]
        mask += [0] * len(words) + [int(label in before)] * (len(letters) + 1)
        before.add(label)
    return ids, mask


def train_model(folder: Path, pairs: Sequence[Pair], steps: int, seed: int) -> Any:
    """Return a Llama of two layers after `steps` of the real engine."""
    return train_word_llama(
        folder,
        [encode_pair(pair) for pair in pairs],
        vocab=len(WORDS),
        end=IDS["end"],
        seq_len=SEQ_LEN,
        rows=64,
        learning_rate=2e-3,
        steps=steps,
        seed=seed,
    )


@torch.inference_mode()
def share_right(model: Any, pairs: Sequence[Pair]) -> float:
    """Return how often the right one of a prompt's candidates is the likeliest whole label."""
    right = 0
    for pair in pairs:
        prompt = encode_prompt(pair)
        totals = []
        for candidate in pair.check["candidates"]:
            label = encode(candidate)
            rows = model(input_ids=torch.tensor([[*prompt, *label]])).logits[0].log_softmax(-1)
            totals.append(sum(float(rows[len(prompt) - 1 + at, token]) for at, token in enumerate(label)))
        right += pair.check["candidates"][max(range(len(totals)), key=totals.__getitem__)] == pair.completion
    return right / len(pairs)

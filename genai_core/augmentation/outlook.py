"""What augmentation will probably leave, told in a second or two and before anything is computed.

Exact duplicates, quality rules and the split are those of the stage itself; near duplicates and leaks are not looked
for, and pairs are built from a sample of the documents. Of a source that is too large to be read at once the first rows
speak for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from genai_core.augmentation.pairs import build_pairs
from genai_core.config.data import AugmentationConfig, PydocsSource, S3Source
from genai_core.config.recipe import Recipe
from genai_core.data.dedup import find_exact
from genai_core.data.documents import Document
from genai_core.data.quality import find_fault
from genai_core.data.resolve import FIRST_ROWS, READ_WHOLE_BYTES, SUFFIXES
from genai_core.data.sources.datasets import HUB
from genai_core.data.sources.files import PACKED, find_files
from genai_core.data.sources.registry import read_documents
from genai_core.data.split import SIDES, assign_sides, require_groups
from genai_core.storage.artifact import ArtifactRef

SAMPLED = 400
BYTES_A_TOKEN = 3.3
"""Of a tokenizer trained on the text itself, between 1,024 and 8,192 entries; measured on English prose and code."""

TURN_TOKENS = 4  # what the chat template puts around prompt and answer
PACKED_RATIO = 3
MOST_READINGS = 12
LEAST_READINGS = 0.1
FEW_PAIRS = 30
FEWEST_STEPS = 20
MUCH_TOO_LONG = 0.3


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is there, and what it will give."""

    read: int
    documents: dict[str, int]
    """By side of the split."""

    pairs: dict[str, int]
    text_bytes: int
    pair_tokens: float
    """Mean tokens of a pair, prompt and answer."""

    too_long: float
    """Share of pairs that do not fit into a row."""

    dropped: dict[str, int]
    whole: bool
    """Whether all of the source was read."""

    def tokens(self) -> int:
        """Return the training text in tokens, about."""
        share = self.documents["train"] / max(1, sum(self.documents.values()))
        return int(share * self.text_bytes / BYTES_A_TOKEN)

    def document_tokens(self) -> float:
        """Return the mean tokens of a document, about."""
        return self.text_bytes / BYTES_A_TOKEN / max(1, sum(self.documents.values()))


def look_ahead(data: AugmentationConfig, source: ArtifactRef | None = None) -> Outlook | None:
    """Return the outlook of a recipe's data; None where it is not at hand (S3, the hub) or is the built-in one.

    Raises:
        DataError: it cannot be read, or too little of it is left to be split or to make a single pair of.
    """
    if isinstance(data.source, (PydocsSource, S3Source)) or (source is not None and source.uri.startswith(HUB)):
        return None
    files = find_files(data.source.path, SUFFIXES.get(data.source.kind, ("",)))
    whole = files.size() <= READ_WHOLE_BYTES
    found = read_documents(data.source, None, data.bad_row_share, None if whole else FIRST_ROWS)
    unpacked = sum(path.stat().st_size * (PACKED_RATIO if path.suffix in PACKED else 1) for path in files.paths)
    return survey(found.documents, data, whole=whole, whole_bytes=unpacked).outlook(data)


@dataclass(frozen=True, slots=True)
class Survey:
    """What does not hang on the split: looked at once."""

    read: int
    groups: list[str]
    """Of every document that is kept."""

    text_bytes: int
    pair_tokens: list[float]
    """Of every pair of the sample."""

    sampled: int
    dropped: dict[str, int]
    whole: bool

    def outlook(self, data: AugmentationConfig) -> Outlook:
        """Return what is to be expected of this split and row length. Raises DataError if it cannot be split."""
        side_of = assign_sides(self.groups, data.split, data.seed, self.dropped)
        sides = Counter(side_of[group] for group in self.groups)
        return Outlook(
            read=self.read,
            documents={side: sides[side] for side in SIDES},
            pairs={side: round(sides[side] * len(self.pair_tokens) / self.sampled) for side in SIDES},
            text_bytes=self.text_bytes,
            pair_tokens=fmean(self.pair_tokens),
            too_long=sum(tokens > data.seq_len for tokens in self.pair_tokens) / len(self.pair_tokens),
            dropped=self.dropped,
            whole=self.whole,
        )


def survey(
    documents: Sequence[Document], data: AugmentationConfig, *, whole: bool = True, whole_bytes: int = 0
) -> Survey:
    """Return what these documents hold.

    Raises:
        DataError: fewer than ten groups are left, or not a single pair can be made of the sample.
    """
    dropped: Counter[str] = Counter()
    gone = {duplicate.index for duplicate in find_exact([document.text for document in documents])}
    kept = []
    for index, document in enumerate(documents):
        fault = "exact_duplicate" if index in gone else find_fault(document.text, data.quality)
        if fault:
            dropped[fault] += 1
        else:
            kept.append(document)
    groups = [document.group for document in kept]
    require_groups(len(kept), len(set(groups)), dropped)
    sample = [kept[index * len(kept) // SAMPLED] for index in range(SAMPLED)] if len(kept) > SAMPLED else kept
    pairs = build_pairs(sample, data.pairs, data.seed, None)
    text_bytes = sum(len(document.text.encode()) for document in kept)
    return Survey(
        read=len(documents),
        groups=groups,
        text_bytes=text_bytes if whole else max(text_bytes, whole_bytes),
        pair_tokens=[TURN_TOKENS + len((pair.prompt + pair.completion).encode()) / BYTES_A_TOKEN for pair in pairs],
        sampled=len(sample),
        dropped=dict(dropped),
        whole=whole,
    )


def worries(outlook: Outlook, recipe: Recipe) -> list[str]:
    """Return what a person should know before a training is paid for; each with its remedy."""
    found = []
    wanted = recipe.promotion.gate.min_cases
    evaluation = recipe.evaluation
    few = {
        "documents": min(outlook.documents["sealed"], evaluation.max_documents),
        # what does not fit into a row mostly does not fit into the model either, and is not measured
        "pairs": int(min(outlook.pairs["sealed"], evaluation.max_prompts) * (1 - outlook.too_long)),
    }
    split = recipe.data.split
    if outlook.whole and min(few.values()) < wanted:
        counts = " and ".join(f"{count} {what}" for what, count in few.items())
        found.append(
            f"only about {counts} will be sealed and measured, but the gate decides on at least {wanted} of each "
            "(promotion.gate.min_cases): the model would be registered and refused. Give more text, smaller documents "
            f"(document: passage, or one row an entry), a larger data.split.sealed_fraction (now {split.sealed_fraction:g})"
            ", larger evaluation.max_documents and max_prompts, or a smaller promotion.gate.min_cases."
        )
    if outlook.too_long > MUCH_TOO_LONG:
        found.append(
            f"about {100 * outlook.too_long:.0f} % of the instruction pairs are longer than a row of "
            f"{recipe.data.seq_len} tokens and will not be trained on. Raise every seq_len (and base.max_seq_len)"
            + (", or lower data.pairs.prompt_words." if recipe.data.pairs.kind == "fields" else ".")
        )
    if outlook.pairs["train"] < FEW_PAIRS:
        remedy = "Give rows with questions and answers (data.pairs: fields)"
        if recipe.data.pairs.kind == "quotes":
            remedy += ", or raise data.pairs.per_document and passage_words; a quote needs sentences that begin with a capital"
        found.append(
            f"only about {outlook.pairs['train']} instruction pairs to train on: too few to learn to answer. {remedy}."
        )
    readings = recipe.pretraining.steps * recipe.pretraining.global_batch_tokens / max(1, outlook.tokens())
    if readings > MOST_READINGS and recipe.pretraining.steps > FEWEST_STEPS:
        found.append(
            f"pre-training would read the text {readings:.0f} times; beyond a few readings a model learns it by heart. "
            f"Lower pretraining.steps, for example to {_fewer(recipe.pretraining.steps * 4 / readings)}."
        )
    elif readings < LEAST_READINGS:
        found.append(
            f"pre-training would read {100 * readings:.1f} % of the text. Raise pretraining.steps if there is time."
        )
    return found


def _fewer(steps: float) -> int:
    return max(FEWEST_STEPS, int(round(steps, -1 if steps > 100 else 0)))

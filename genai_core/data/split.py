"""Train, held-out and sealed documents: by group, so that nothing of a group is on both sides.

A group's side is a function of (seed, group name) alone: a corpus that grows never moves a group from training to the
held-out side, where a model of last week would have seen it. Only where a side would be empty does the group nearest
to it in hash order go there, so that a corpus of twenty files can be measured at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from genai_core.config.data import SplitConfig
from genai_core.data.documents import Document
from genai_core.data.shingles import Hashes, WordHasher, body, mark
from genai_core.errors import DataError

SIDES = ("train", "heldout", "sealed")
LEAST_GROUPS = 10  # fewer leave a held-out side of a group or two, whose figures say nothing
SHINGLE = 5
CONTAINED = 0.8


def assign_sides(
    groups: Sequence[str], config: SplitConfig, seed: int, dropped: Mapping[str, int] | None = None
) -> dict[str, str]:
    """Return the side of every group.

    Args:
        groups: the group of every document.
        seed: of the split.
        dropped: documents dropped before, by reason; told when too little is left.

    Raises:
        DataError: fewer than ten groups.
    """
    names = sorted(set(groups), key=lambda group: (group_position(group, seed), group))
    require_groups(len(groups), len(names), dropped or {})
    first_sealed, first_train = config.heldout_fraction, config.heldout_fraction + config.sealed_fraction
    sides = {}
    for name in names:
        position = group_position(name, seed)
        sides[name] = "heldout" if position < first_sealed else "sealed" if position < first_train else "train"
    for side, fraction in (("heldout", config.heldout_fraction), ("sealed", config.sealed_fraction)):
        if fraction and side not in sides.values():
            sides[next(name for name in names if sides[name] == "train")] = side
    return sides


def require_groups(documents: int, groups: int, dropped: Mapping[str, int]) -> None:
    """Raise DataError if so few groups cannot be split."""
    if groups >= LEAST_GROUPS:
        return
    lost = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()) if count)
    raise DataError(
        f"Too little is left to split: {documents:,} documents in {groups} groups"
        f"{f' (dropped: {lost})' if lost else ''}, but training, held-out and sealed text need at least {LEAST_GROUPS} "
        "groups. Add files or rows; make smaller groups (source.document: passage with fewer passage_words, or source.group_field); or drop "
        "fewer documents (data.quality, data.dedup)."
    )


def group_position(group: str, seed: int) -> float:
    """Return where in [0, 1) the group falls."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def find_leaks(train: Sequence[Document], held: Sequence[Document], threshold: float = CONTAINED) -> dict[int, float]:
    """Return the positions in `held` whose text training has, with the share of it that training has.

    A document leaks if that share of its word 5-grams occurs anywhere in the training documents. This contains every
    near-duplicate (Jaccard s of two sets means that at least the share s of each is in the other), and also a text
    that is a part of a longer one, or put together from several. A text of fewer than 5 words leaks if training has
    the same one.
    """
    hasher = WordHasher()
    shingles = [np.unique(_shingles(hasher, document)) for document in held]
    # training is walked past what is held: sorting all of its n-grams takes more than its length, and its memory
    wanted = np.unique(np.concatenate([np.empty(0, np.uint64), *shingles]))
    seen = np.zeros(len(wanted), np.bool_)
    for document in train:
        mark(wanted, seen, _shingles(hasher, document))
    leaks = {}
    for index, own in enumerate(shingles):
        share = float(seen[np.searchsorted(wanted, own)].mean()) if len(own) else 0.0
        if share >= threshold:
            leaks[index] = round(share, 6)
    return leaks


def _shingles(hasher: WordHasher, document: Document) -> Hashes:
    text = body(document)
    found = hasher.ngrams(text, SHINGLE)
    return found if len(found) else hasher.ngrams(text, max(1, len(hasher.words(text))))

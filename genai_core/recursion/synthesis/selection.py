"""Which verified pairs are new: against each other, all earlier data, and everything that will be measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genai_core.augmentation.sentences import collapse_spaces
from genai_core.data.decontamination import LEAST_WORDS, find_contamination, find_repeated_prompts
from genai_core.data.documents import Pair, read_pairs
from genai_core.data.shingles import split_words
from genai_core.recursion.metrics import repeated_share
from genai_core.recursion.synthesis.vary import Sample

NGRAM = 13  # Brown et al. 2020, arXiv 2005.14165, appendix C
SHOWN_PER_REASON = 4


@dataclass(frozen=True)
class Selection:
    """Every raw sample with its fate."""

    samples: tuple[Sample, ...]

    @property
    def pairs(self) -> list[Pair]:
        """Return the accepted pairs, in the order they were sampled."""
        return [sample.pair for sample in self.samples if sample.pair is not None]

    def stats(self) -> dict[str, Any]:
        """Return the counts: raw, accepted, rejected by reason, acceptance rate, duplicate share of the raw samples."""
        rejected = Counter(sample.reason for sample in self.samples if sample.reason)
        raw, accepted = len(self.samples), len(self.pairs)
        return {
            "raw": raw,
            "accepted": accepted,
            "rejected": dict(sorted(rejected.items())),
            "acceptance_rate": accepted / raw if raw else 0.0,
            "duplicate_share": repeated_share(
                [sample.source.prompt for sample in self.samples], [sample.answer for sample in self.samples]
            ),
        }

    def shown(self) -> dict[str, list[dict[str, str]]]:
        """Return a few samples of every fate, to look at."""
        found: dict[str, list[dict[str, str]]] = {}
        for sample in self.samples:
            rows = found.setdefault(sample.reason or "accepted", [])
            if len(rows) < SHOWN_PER_REASON:
                rows.append(
                    {
                        "asked": sample.source.prompt,
                        "gold": sample.source.completion,
                        "answer": sample.answer,
                        "instruction": sample.pair.prompt if sample.pair else "",
                    }
                )
        return found


def select(
    samples: Sequence[Sample], real: Sequence[Pair], earlier: Sequence[Pair], measured: Sequence[Pair]
) -> Selection:
    """Return the samples with those rejected that repeat another pair or give away an evaluation pair.

    Args:
        samples: what `vary` made.
        real: the real training pairs.
        earlier: accepted pairs of all earlier generations.
        measured: all held-out and sealed pairs.
    """
    seen = {_content(pair): "in_earlier_generation" for pair in earlier} | {
        _content(pair): "in_real_data" for pair in real
    }
    judged: list[Sample] = []
    for sample in samples:
        if sample.pair is None:
            judged.append(sample)
            continue
        reason = seen.setdefault(_content(sample.pair), "")
        judged.append(_rejected(sample, reason) if reason else sample)
        seen[_content(sample.pair)] = reason or "duplicate"
    return Selection(tuple(_without_contamination(judged, measured)))


def measured_pairs(corpus: Path) -> list[Pair]:
    """Return the pairs that no training data may give away. Of the sealed ones nothing is kept but the comparison."""
    files = (corpus / "pairs" / f"{split}.parquet" for split in ("heldout", "sealed"))
    return [pair for file in files if file.exists() for pair in read_pairs(file)]


def find_leaking(pairs: Sequence[Pair], measured: Sequence[Pair]) -> set[int]:
    """Return the positions of pairs that share a 13-gram of prompt + answer, the prompt, or a whole answer with a measured one."""
    hits = set(find_contamination([f"{pair.prompt}\n\n{pair.completion}" for pair in pairs], measured, NGRAM).hits)
    hits |= set(find_repeated_prompts(pairs, measured))
    answers = {tuple(split_words(pair.completion)) for pair in measured}
    for position, pair in enumerate(pairs):
        answer = tuple(split_words(pair.completion))
        if len(answer) >= LEAST_WORDS and answer in answers:  # a shorter answer, "yes", is nobody's
            hits.add(position)
    return hits


def _without_contamination(samples: Sequence[Sample], measured: Sequence[Pair]) -> list[Sample]:
    kept = [(index, sample.pair) for index, sample in enumerate(samples) if sample.pair is not None]
    leaking = {kept[position][0] for position in find_leaking([pair for _, pair in kept], measured)}
    return [_rejected(sample, "contaminated") if index in leaking else sample for index, sample in enumerate(samples)]


def _rejected(sample: Sample, reason: str) -> Sample:
    return replace(sample, reason=reason, pair=None)


def _content(pair: Pair) -> tuple[str, str]:
    """Return what two pairs are the same by: the wording of the request does not make a new pair."""
    return pair.doc_id, collapse_spaces(pair.completion)

"""Questions with documents before them: retriever-aware training (RAT) and RAFT.

    kind   share                 documents in the prompt
    rat    oracle_share          the right one, and others that the index finds; 1 to `documents` in all, shuffled
           retrieved_share       the best that the index finds, right or wrong, best first
           what is left          none
    raft   oracle_share (P)      the right one D* and k distractors, shuffled
           what is left (1 - P)  k + 1 distractors

The answer is that of the question, also where the right document is missing: the model learns to read what helps and to
see through what does not. RAT: Patil et al. 2023, arXiv 2305.15334, section 3; what the index finds is added to the paper's
recipe, which trained with right documents only. RAFT: Zhang et al. 2024, arXiv 2403.10131, section 3.

Layouts (Q the question, D a document on one or more lines):

    blocks     D1 \\n\\n D2 \\n\\n Q                                        what the verifiers of `call` pairs read
    tagged     <DOCUMENT>D1</DOCUMENT> \\n <DOCUMENT>D2</DOCUMENT> \\n Q     RAFT
    appended   Q \\n Use this API documentation for reference: D1 \\n D2     Gorilla

What is drawn for a pair depends on (seed, the pair's id, the copy) and the index alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from genai_core.config.retrieval import DistractorsFrom, Layout, Raft, Rat
from genai_core.data.document_index import Hit, Index
from genai_core.data.documents import Pair
from genai_core.errors import DataError

ALONE = "alone"
ORACLE = "oracle"
REFERENCE = "Use this API documentation for reference: "


@dataclass(frozen=True, slots=True)
class Shown:
    """A document in a prompt; without rank and score where it was not found but put there."""

    doc_id: str
    rank: int | None = None
    score: float | None = None


def write_prompt(question: str, documents: Sequence[str], layout: Layout = "blocks") -> str:
    """Return the question with its documents; the question itself if there are none."""
    if not documents:
        return question
    match layout:
        case "blocks":
            return "\n\n".join([*(_without_blank_lines(document) for document in documents), question])
        case "tagged":
            return "\n".join([*(f"<DOCUMENT>{document}</DOCUMENT>" for document in documents), question])
        case "appended":
            return f"{question}\n{REFERENCE}" + "\n".join(documents)
        case _:
            assert_never(layout)


def training_pairs(pairs: Sequence[Pair], index: Index, config: Rat | Raft, seed: int) -> list[Pair]:
    """Return every pair `config.copies` times with documents drawn for it, copies side by side.

    Raises:
        DataError: the document of a pair is not in the index, or the index holds fewer than a prompt needs.
    """
    found = _search(pairs, index, config.shown)
    written: list[Pair] = []
    for pair, hits in zip(pairs, found, strict=True):
        for copy in range(config.copies):
            rng = random.Random(f"{seed}/{pair.pair_id}/{copy}/retrieval")
            if isinstance(config, Rat):
                shown = _draw_rat(pair, hits, index, config, rng)
            else:
                shown = _draw_raft(pair, hits, index, config, rng)
            made = show(pair, shown, index, config.layout)
            written.append(made if config.copies == 1 else replace(made, pair_id=f"{pair.pair_id}/{copy}"))
    return written


def asked_pairs(pairs: Sequence[Pair], index: Index, k: int, layout: Layout = "blocks") -> list[Pair]:
    """Return the pairs with the k best documents that the index finds now, best first.

    A pair that has documents is asked anew: what counts is its question, so an updated index gives updated prompts.
    """
    bare = [question_of(pair) for pair in pairs]
    found = index.search([pair.prompt for pair in bare], k)
    return [
        show(pair, [Shown(hit.doc_id, rank, hit.score) for rank, hit in enumerate(hits)], index, layout)
        for pair, hits in zip(bare, found, strict=True)
    ]


def oracle_pairs(
    pairs: Sequence[Pair],
    index: Index,
    distractors: int,
    seed: int,
    layout: Layout = "blocks",
    distractors_from: DistractorsFrom = "index",
) -> list[Pair]:
    """Return the pairs with the right document among `distractors` wrong ones, the best found or any, shuffled."""
    bare = [question_of(pair) for pair in pairs]
    asked = []
    for pair, hits in zip(bare, _search(bare, index, distractors), strict=True):
        rng = random.Random(f"{seed}/{pair.pair_id}/oracle")
        others = hits if distractors_from == "index" else []
        shown = [Shown(pair.doc_id), *_draw_distractors(others, index, distractors, pair.doc_id, rng)]
        rng.shuffle(shown)
        asked.append(show(pair, shown, index, layout))
    return asked


def evaluation_pairs(pairs: Sequence[Pair], index: Index, config: Rat | Raft, seed: int) -> list[Pair]:
    """Return the pairs as they are asked in the end, and under task names of their own what stands beside them.

    `call`: with the documents that the index finds. `call-alone`: without. `call-oracle`: with the right one among others.
    A model trained with documents only can be lost without them, so both are always measured.
    """
    asked = asked_pairs(pairs, index, config.shown, config.layout)
    source: DistractorsFrom = config.distractors_from if isinstance(config, Raft) else "index"
    told = oracle_pairs(pairs, index, config.shown - 1, seed, config.layout, source)
    alone = [show(question_of(pair), [], index, config.layout) for pair in pairs]
    return [*asked, *_renamed(alone, ALONE), *_renamed(told, ORACLE)]


def question_of(pair: Pair) -> Pair:
    """Return the pair as it was before documents were put to it."""
    if "question" not in pair.check:
        return pair
    added = ("question", "retrieved", "is_oracle_in_context")
    check = {name: value for name, value in pair.check.items() if name not in added}
    return replace(pair, prompt=pair.check["question"], check=check)


def show(pair: Pair, shown: Sequence[Shown], index: Index, layout: Layout = "blocks") -> Pair:
    """Return the bare pair with these documents; its check says which, and whether the right one is among them."""
    check = {
        **pair.check,
        "question": pair.prompt,
        "retrieved": [{"doc_id": one.doc_id, "rank": one.rank, "score": one.score} for one in shown],
        "is_oracle_in_context": any(one.doc_id == pair.doc_id for one in shown),
    }
    prompt = write_prompt(pair.prompt, [index.texts[one.doc_id] for one in shown], layout)
    return replace(pair, prompt=prompt, check=check)


def recall(pairs: Iterable[Pair]) -> float:
    """Return the share of pairs whose prompt shows the right document; NaN of none."""
    seen = [bool(pair.check.get("is_oracle_in_context")) for pair in pairs]
    return sum(seen) / len(seen) if seen else float("nan")


def _draw_rat(pair: Pair, hits: Sequence[Hit], index: Index, config: Rat, rng: random.Random) -> list[Shown]:
    drawn, count = rng.random(), rng.randint(1, config.documents)
    if drawn < config.oracle_share:
        shown = [Shown(pair.doc_id), *_draw_distractors(hits, index, count - 1, pair.doc_id, rng)]
        rng.shuffle(shown)
        return shown
    if drawn < config.oracle_share + config.retrieved_share:
        return [Shown(hit.doc_id, rank, hit.score) for rank, hit in enumerate(hits[:count])]
    return []


def _draw_raft(pair: Pair, hits: Sequence[Hit], index: Index, config: Raft, rng: random.Random) -> list[Shown]:
    hits = hits if config.distractors_from == "index" else ()
    if rng.random() < config.oracle_share:
        shown = [Shown(pair.doc_id), *_draw_distractors(hits, index, config.distractors, pair.doc_id, rng)]
    else:
        shown = _draw_distractors(hits, index, config.distractors + 1, pair.doc_id, rng)
    rng.shuffle(shown)
    return shown


def _draw_distractors(hits: Sequence[Hit], index: Index, count: int, right: str, rng: random.Random) -> list[Shown]:
    """Return `count` different wrong documents: the best hits first, then any others, uniformly."""
    shown = [Shown(hit.doc_id, rank, hit.score) for rank, hit in enumerate(hits) if hit.doc_id != right][:count]
    taken, ids = {right, *(one.doc_id for one in shown)}, list(index.texts)
    while len(shown) < count:
        drawn = rng.choice(ids)
        if drawn not in taken:
            taken.add(drawn)
            shown.append(Shown(drawn))
    return shown


def _search(pairs: Sequence[Pair], index: Index, wanted: int) -> list[list[Hit]]:
    """Return enough hits for each pair that `wanted` wrong documents are left beside the right one.

    Raises:
        DataError: a pair's own document is not there, or there are too few others.
    """
    if len(index.texts) <= wanted:
        raise DataError(
            f"A prompt needs up to {wanted} documents beside the right one, but the index holds {len(index.texts)} in all. "
            "Add documents, or lower retrieval.documents or retrieval.distractors."
        )
    for pair in pairs:
        if pair.doc_id not in index.texts:
            raise DataError(
                f"Pair {pair.pair_id} is about document {pair.doc_id!r}, which the index does not hold. Index the "
                "documents that the pairs were made from."
            )
    return index.search([pair.prompt for pair in pairs], wanted + 1)


def _without_blank_lines(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.strip())


def _renamed(pairs: Iterable[Pair], suffix: str) -> Iterator[Pair]:
    for pair in pairs:
        yield replace(pair, pair_id=f"{pair.pair_id}/{suffix}", task=f"{pair.task}-{suffix}")

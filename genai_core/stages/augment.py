"""Raw text -> documents, pairs, a tokenizer and packed rows.

    read -> repair -> exact duplicates -> quality -> near duplicates -> personal data -> split -> leaks
         -> pairs -> decontaminate -> retrieval -> tokenizer -> pack -> n-grams -> preflight

Every document that does not arrive is counted by reason (stats.json) and a few of each are kept (samples.json).
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from genai_core.augmentation.pairs import build_pairs
from genai_core.augmentation.retrieval_prompts import evaluation_pairs, recall, training_pairs
from genai_core.augmentation.shown_documents import shown_documents
from genai_core.config.data import (
    AugmentationConfig,
    MarkdownSource,
    PydocsSource,
    S3Source,
    SymbolPairs,
    TrainTokenizer,
)
from genai_core.config.retrieval import NoRetrieval
from genai_core.config.stages import AugmentStage
from genai_core.data import pydocs
from genai_core.data.bm25 import Bm25Index
from genai_core.data.cleaning import clean_document
from genai_core.data.decontamination import find_contamination, find_repeated_prompts
from genai_core.data.dedup import Duplicate, find_exact, find_near
from genai_core.data.documents import Document, Pair, write_documents, write_pairs
from genai_core.data.dropped import Dropped
from genai_core.data.fill_in_middle import encode_with_middles
from genai_core.data.groups import join_groups, shuffle, shuffle_groups
from genai_core.data.links import keep_links, link_titles
from genai_core.data.ngrams import ngram_bits_per_byte
from genai_core.data.packing import PackedRows, pack_documents
from genai_core.data.pair_rows import check_pair_rows, fields_of
from genai_core.data.pii import mask_document
from genai_core.data.preflight import write_preflight
from genai_core.data.quality import find_fault
from genai_core.data.resolve import require_unchanged
from genai_core.data.sources import s3
from genai_core.data.sources.registry import read_documents
from genai_core.data.sources.result import ReadResult
from genai_core.data.split import SIDES, assign_sides, find_leaks
from genai_core.data.token_bytes import count_token_bytes
from genai_core.data.tokenizer import document_end_id, document_start_id, encode_documents, train_tokenizer
from genai_core.errors import DataError
from genai_core.models.resolve import base_at
from genai_core.stages.contract import StageContext, StageResult

STEPS = (
    "read",
    "repair",
    "exact duplicates",
    "quality",
    "near duplicates",
    "personal data",
    "split",
    "pairs",
    "decontaminate",
    "retrieval",
    "tokenizer",
    "pack",
    "n-grams",
    "preflight",
)


@dataclass
class Corpus:
    """What the steps hand on."""

    documents: list[Document] = field(default_factory=list)
    objects: pydocs.Objects | None = None
    sides: dict[str, list[Document]] = field(default_factory=dict)
    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    dropped: Dropped = field(default_factory=Dropped)
    stats: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def augment(config: AugmentStage, context: StageContext) -> StageResult:
    """Write the dataset artifact: documents/, pairs/, tokenizer/, packed/, stats, samples, preflight, objects.

    Raises:
        DataError: the source cannot be read, has changed, or too little of it is left.
    """
    settings, corpus = config.augmentation, Corpus()
    started = time.monotonic()
    with _step("read", corpus, context):
        read = _read(settings, context, corpus)
    source_bytes = _bytes(corpus.documents)
    with _step("repair", corpus, context):
        corpus.documents = [clean_document(document, settings.cleaning) for document in corpus.documents]
    _filter(settings, context, corpus)
    with _step("split", corpus, context):
        _split(settings, corpus)
    with _step("pairs", corpus, context):
        _write_pairs_of(settings, corpus)
    with _step("decontaminate", corpus, context):
        _decontaminate(settings, corpus)
    with _step("retrieval", corpus, context):
        _retrieve(settings, corpus)
    with _step("tokenizer", corpus, context):
        tokenizer = _make_tokenizer(settings, context, corpus.sides["train"])
    with _step("pack", corpus, context):
        packed = _write(settings, context, corpus, tokenizer)
    with _step("n-grams", corpus, context):
        found = ngram_bits_per_byte(packed["train"], packed["heldout"], count_token_bytes(tokenizer, len(tokenizer)))
        corpus.stats["ngram_bits_per_byte"] = {str(order): round(bits, 6) for order, bits in found.items()}
    with _step("preflight", corpus, context):
        shares = write_preflight(context.output, tokenizer, corpus.pairs["train"], packed["train"])
        corpus.stats["supervised_shares"] = {
            name: round(float(source["share"]), 6) for name, source in sorted(shares["sources"].items())
        }
    _write_json(context, "stats.json", corpus.stats)
    _write_json(context, "samples.json", dict(sorted(corpus.dropped.samples.items())))
    seconds = time.monotonic() - started
    return StageResult(
        metrics=_metrics(corpus),
        told={
            "step_seconds": {name: round(value, 3) for name, value in corpus.seconds.items()},
            "megabytes_per_second": round(source_bytes / 1e6 / seconds, 3),
            "skipped_rows": read.skipped,
            "first_skipped_rows": list(read.first_skipped),
        },
    )


@contextmanager
def _step(name: str, corpus: Corpus, context: StageContext) -> Iterator[None]:
    context.check()
    started = time.monotonic()
    yield
    corpus.seconds[name] = time.monotonic() - started
    context.journal.progress(STEPS.index(name) + 1, len(STEPS), "steps", part=name)


def _read(settings: AugmentationConfig, context: StageContext, corpus: Corpus) -> ReadResult:
    source, ref = settings.source, context.refs["source"]
    place = context.inputs.get("source") or ref.uri
    if isinstance(source, PydocsSource):
        read, corpus.objects = pydocs.read_with_objects(source)
    elif isinstance(source, S3Source):
        fetched = context.workspace.path / f"source-{ref.digest[:16]}"
        read = read_documents(s3.fetch(source, ref.uri, fetched, ref.digest), None, settings.bad_row_share)
    else:
        read = read_documents(source, place, settings.bad_row_share)
    require_unchanged(source, ref)
    for place_of_row in read.first_skipped:
        context.journal.event(f"skipped an unreadable row: {place_of_row}")
    unfit = check_pair_rows(read.documents, settings.pairs, settings.bad_row_share)
    for place_of_row in unfit.first_skipped:
        context.journal.event(f"no pair is made of a row that does not fit: {place_of_row}")
    named = fields_of(settings.pairs)
    corpus.documents = [_keep_fields(document, named) for document in read.documents]
    corpus.stats = {
        "source": source.kind,
        "rows_read": read.rows,
        "rows_skipped": read.skipped,
        "documents_read": len(read.documents),
        "bytes_read": _bytes(read.documents),
    }
    return read


def _keep_fields(document: Document, named: Sequence[str]) -> Document:
    """Leave out the fields that no pair is built from: nobody reads them, and they may hold what nobody has looked at."""
    if "fields" not in document.meta:
        return document
    tops = {*named, *(name.split(".")[0] for name in named)}
    kept = {name: value for name, value in document.meta["fields"].items() if name in tops}
    return replace(document, meta={**document.meta, "fields": kept})


def _filter(settings: AugmentationConfig, context: StageContext, corpus: Corpus) -> None:
    with _step("exact duplicates", corpus, context):
        _drop_duplicates(corpus, find_exact([document.text for document in corpus.documents]), "exact_duplicate")
    with _step("quality", corpus, context):
        kept = []
        for document in corpus.documents:
            fault = find_fault(document.text, settings.quality)
            if fault:
                corpus.dropped.drop(document, fault)
            else:
                kept.append(document)
        corpus.documents = kept
    with _step("near duplicates", corpus, context):
        if settings.dedup.near:
            found = find_near([document.text for document in corpus.documents], settings.dedup)
            sizes: dict[int, int] = defaultdict(lambda: 1)
            for duplicate in found:
                sizes[duplicate.survivor] += 1
            corpus.stats["near_duplicate_clusters"] = len(sizes)
            corpus.stats["largest_near_duplicate_cluster"] = max(sizes.values(), default=0)
            _drop_duplicates(corpus, found, "near_duplicate")
        if not isinstance(settings.source, (PydocsSource, MarkdownSource)):
            corpus.documents = link_titles(corpus.documents)
    with _step("personal data", corpus, context):
        if settings.cleaning.mask_pii:
            masked = [mask_document(document) for document in corpus.documents]
            corpus.documents = [document for document, _ in masked]
            corpus.stats["masked_documents"] = sum(count > 0 for _, count in masked)
            corpus.stats["masked_values"] = sum(count for _, count in masked)


def _drop_duplicates(corpus: Corpus, found: Sequence[Duplicate], reason: str) -> None:
    for duplicate in found:
        survivor = corpus.documents[duplicate.survivor].doc_id
        corpus.dropped.drop(
            corpus.documents[duplicate.index], reason, survivor=survivor, similarity=duplicate.similarity
        )
    gone = {duplicate.index for duplicate in found}
    corpus.documents = [document for index, document in enumerate(corpus.documents) if index not in gone]


def _split(settings: AugmentationConfig, corpus: Corpus) -> None:
    groups = [document.group for document in corpus.documents]
    side_of = assign_sides(groups, settings.split, settings.seed, corpus.dropped.counts)
    corpus.sides = {side: [] for side in SIDES}
    for document in corpus.documents:
        corpus.sides[side_of[document.group]].append(document)
    # held-out text is looked at while working, so the sealed side must have nothing of it either
    seen = corpus.sides["train"]
    for side in ("heldout", "sealed"):
        leaks = find_leaks(seen, corpus.sides[side])
        for index, share in leaks.items():
            corpus.dropped.drop(corpus.sides[side][index], f"{side}_leak", share=share)
        corpus.sides[side] = [document for index, document in enumerate(corpus.sides[side]) if index not in leaks]
        seen = [*seen, *corpus.sides[side]]
    _require_sides(settings, corpus, {side: len(corpus.sides[side]) for side in SIDES}, "documents")


def _write_pairs_of(settings: AugmentationConfig, corpus: Corpus) -> None:
    if isinstance(settings.pairs, SymbolPairs):
        corpus.pairs = {
            side: build_pairs(
                corpus.sides[side], settings.pairs, settings.seed, corpus.objects, held_out=side != "train"
            )
            for side in SIDES
        }
        return
    side_of = {document.doc_id: side for side in SIDES for document in corpus.sides[side]}
    documents = [document for document in corpus.documents if document.doc_id in side_of]
    corpus.pairs = {side: [] for side in SIDES}
    alone = not isinstance(settings.retrieval, NoRetrieval)
    for pair in build_pairs(documents, settings.pairs, settings.seed, corpus.objects, documented=not alone):
        corpus.pairs[side_of[pair.doc_id]].append(pair)


def _decontaminate(settings: AugmentationConfig, corpus: Corpus) -> None:
    measured = [*corpus.pairs["heldout"], *corpus.pairs["sealed"]]
    train = corpus.sides["train"]
    found = find_contamination([document.text for document in train], measured, settings.split.decontaminate_ngram)
    for index, pair_id in found.hits.items():
        corpus.dropped.drop(train[index], "contaminated", pair=pair_id)
    gone = {train[index].doc_id for index in found.hits}
    corpus.sides["train"] = [document for document in train if document.doc_id not in gone]
    pairs = [pair for pair in corpus.pairs["train"] if pair.doc_id not in gone]
    repeated = set(find_repeated_prompts(pairs, measured))
    corpus.pairs["train"] = [pair for index, pair in enumerate(pairs) if index not in repeated]
    corpus.stats["decontamination"] = {
        "evaluation_pairs": len(measured),
        "evaluation_pairs_found": found.by_task,
        "common_ngrams_ignored": found.common_ngrams,
        "unprotected_pairs": found.unprotected,
        "training_pairs_with_an_evaluation_prompt": len(repeated),
    }
    _require_sides(settings, corpus, {side: len(corpus.sides[side]) for side in SIDES}, "documents")
    _require_sides(settings, corpus, {side: len(corpus.pairs[side]) for side in SIDES}, "instruction pairs")


def _retrieve(settings: AugmentationConfig, corpus: Corpus) -> None:
    """Put documents to the pairs; a side's index holds its own documents and those of the sides that may be seen before it.

    After decontamination: a training document that stands in a held-out prompt as a distractor is no leak.
    """
    config = settings.retrieval
    if isinstance(config, NoRetrieval):
        return
    texts: dict[str, str] = {}
    corpus.stats["retrieval"] = {}
    for side in SIDES:
        texts |= shown_documents(corpus.sides[side], corpus.objects, config.document_words)
        if not corpus.pairs[side]:
            continue
        index, pairs = Bm25Index(texts), corpus.pairs[side]
        write = training_pairs if side == "train" else evaluation_pairs
        corpus.pairs[side] = write(pairs, index, config, settings.seed)
        asked = {pair.task for pair in pairs}
        corpus.stats["retrieval"][side] = {
            "documents": len(texts),
            "prompts_with_the_right_document": recall(pair for pair in corpus.pairs[side] if pair.task in asked),
        }


def _require_sides(settings: AugmentationConfig, corpus: Corpus, counts: dict[str, int], what: str) -> None:
    wanted = {"train": 1.0, "heldout": settings.split.heldout_fraction, "sealed": settings.split.sealed_fraction}
    empty = [side for side in SIDES if wanted[side] and not counts[side]]
    if empty:
        there = ", ".join(f"{counts[side]:,} {side}" for side in SIDES)
        lost = ", ".join(f"{count:,} {reason}" for reason, count in sorted(corpus.dropped.counts.items()))
        raise DataError(
            f"No {what} left for {' and '.join(empty)}: {there} {what}, from {corpus.stats['documents_read']:,} documents "
            f"(dropped: {lost or 'none'}). Add text, raise split.heldout_fraction and split.sealed_fraction, or choose "
            "another data.seed."
        )


def _make_tokenizer(settings: AugmentationConfig, context: StageContext, train: Sequence[Document]) -> Any:
    if isinstance(settings.tokenizer, TrainTokenizer):
        return train_tokenizer(
            (document.text for document in train),
            settings.tokenizer.vocab_size,
            max_length=settings.seq_len,
            mask_token=settings.tokenizer.mask_token,
            fim_marks=settings.fim_rate > 0,
            sentinels=settings.tokenizer.sentinels,
        )
    from genai_core.models.load import load_base_tokenizer

    ref = context.refs["base"]
    tokenizer = load_base_tokenizer(base_at(ref), ref)
    tokenizer.name_or_path = ""  # where it was loaded from is no part of what it is
    tokenizer.init_kwargs.pop("name_or_path", None)
    return tokenizer


def _write(
    settings: AugmentationConfig, context: StageContext, corpus: Corpus, tokenizer: Any
) -> dict[str, PackedRows]:
    """Write everything but the preflight; return the packed rows of training and held-out text."""
    output = context.output
    tokenizer.save_pretrained(str(output / "tokenizer"))
    packed: dict[str, PackedRows] = {}
    sizes: dict[str, dict[str, int]] = {}
    start, end = document_start_id(tokenizer), document_end_id(tokenizer)
    for side in SIDES:
        context.check()
        documents = keep_links(corpus.sides[side])
        write_documents(output / "documents" / f"{side}.parquet", documents)
        write_pairs(output / "pairs" / f"{side}.parquet", corpus.pairs[side])
        sizes[side] = {
            "documents": len(documents),
            "groups": len({document.group for document in documents}),
            "bytes": _bytes(documents),
            "links": sum(len(document.links) for document in documents),
            "pairs": len(corpus.pairs[side]),
        }
        if side == "sealed":
            continue  # opened only by promotion, which scores documents, not rows
        by_group = settings.context == "group"
        if side == "train":  # neighbours in a row would otherwise be of one module
            documents = shuffle_groups(documents, settings.seed) if by_group else shuffle(documents, settings.seed)
        texts = [document.text for document in documents]
        if side == "train" and settings.fim_rate:
            names = [document.doc_id for document in documents]
            encoded = encode_with_middles(tokenizer, texts, names, settings.fim_rate, settings.seed)
        else:
            encoded = encode_documents(tokenizer, texts)
        counted = _Counted(encoded)
        sequences = join_groups(counted, [document.group for document in documents], end) if by_group else counted
        path = output / "packed" / f"{side}.arrow"
        pad = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        packed[side] = pack_documents(sequences, settings.seq_len, end, bos_id=start, pad_id=pad, path=path)
        sizes[side] |= {"tokens": counted.tokens, "rows": len(packed[side])}
    if corpus.objects is not None:
        text = json.dumps(corpus.objects, ensure_ascii=False, separators=(",", ":"))
        (output / "objects.json").write_text(text + "\n", encoding="utf-8")
    corpus.stats |= {
        "dropped": dict(sorted(corpus.dropped.counts.items())),
        "dropped_total": corpus.dropped.total(),
        "sides": sizes,
        "tasks": {side: _count_tasks(corpus.pairs[side]) for side in SIDES},
        "vocab_size": len(tokenizer),
    }
    return packed


class _Counted:
    def __init__(self, token_lists: Iterable[Sequence[int]]) -> None:
        self._token_lists = token_lists
        self.tokens = 0

    def __iter__(self) -> Iterator[Sequence[int]]:
        for tokens in self._token_lists:
            self.tokens += len(tokens)
            yield tokens


def _metrics(corpus: Corpus) -> dict[str, float]:
    sides = corpus.stats["sides"]
    figures = {
        "documents_read": corpus.stats["documents_read"],
        "documents": sum(sides[side]["documents"] for side in SIDES),
        "bytes": sum(sides[side]["bytes"] for side in SIDES),
        "tokens": sides["train"]["tokens"] + sides["heldout"]["tokens"],
        "pairs": sum(sides[side]["pairs"] for side in SIDES),
        "train_rows": sides["train"]["rows"],
        "rows_skipped": corpus.stats["rows_skipped"],
        "dropped": corpus.stats["dropped_total"],
    }
    figures |= {f"{order}-gram_bits_per_byte": bits for order, bits in corpus.stats["ngram_bits_per_byte"].items()}
    figures |= {f"dropped_{reason}": count for reason, count in corpus.stats["dropped"].items()}
    return {name: float(value) for name, value in figures.items()}


def _count_tasks(pairs: Sequence[Pair]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for pair in pairs:
        counts[pair.task] = counts.get(pair.task, 0) + 1
    return dict(sorted(counts.items()))


def _bytes(documents: Iterable[Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)


def _write_json(context: StageContext, name: str, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)
    (context.output / name).write_text(text + "\n", encoding="utf-8")

"""Pre-training and tuning: rows in, a model folder out. The bodies prepare rows; the engine trains.

Tuning serves fine-tuning, a generation, its real-only control arm and learning from corrections: they differ in their
inputs only.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genai_core.config.objectives import Distillation, LinkedLm, embedding_of, mixed_datasets, writer_of
from genai_core.config.stages import PretrainStage, TuneStage
from genai_core.config.training import LocalSgd, TrainingConfig
from genai_core.data.documents import Pair, read_pairs
from genai_core.errors import DataError, ModelError
from genai_core.stages.contract import StageContext, StageResult
from genai_core.storage.artifact import ArtifactRef
from genai_core.training.plan import KnownPlans

if TYPE_CHECKING:
    from genai_core.data.packing import PackedRows

PLANS = KnownPlans()


def pretrain(config: PretrainStage, context: StageContext) -> StageResult:
    """Train a base model on the packed rows of the corpus."""
    corpus = context.inputs["corpus"]
    held_out: Path | None = corpus / "packed" / "heldout.arrow"
    if isinstance(config.training.objective, LinkedLm):
        rows, shares = _linked_rows(config.training, config.training.objective, context, "train")
        try:
            held_out, _ = _linked_rows(config.training, config.training.objective, context, "heldout")
        except DataError as error:
            held_out = None
            context.journal.event(f"no held-out pairs are measured: {error}")
    else:
        rows, shares = _text_rows(config, context)
    datasets = {"text": rows}
    if any(dataset.name == "pairs" for dataset in mixed_datasets(config.training.objective)):
        pairs, _ = _pair_rows(config.training, context, read_pairs(corpus / "pairs" / "train.parquet"))
        datasets["pairs"] = _rewrite(pairs, context, "rows/pairs.arrow")
    datasets |= _retrieval_rows(config.training, context)
    result = _train(
        config.training,
        context,
        rows=rows,
        datasets=datasets,
        held_out=held_out,
        start={"base": config.base.model_dump(mode="json"), "base_ref": _dump(context.refs.get("base"))},
    )
    # beside its own figure, what counting predicts of the same rows
    ngrams = json.loads((corpus / "stats.json").read_text(encoding="utf-8"))["ngram_bits_per_byte"]
    yardstick = {f"{order}-gram_bits_per_byte": float(bits) for order, bits in ngrams.items()}
    return StageResult(metrics={**result.metrics, **shares, **yardstick}, told=result.told)


def tune(config: TuneStage, context: StageContext) -> StageResult:
    """Train a model on instruction pairs: the corpus's own, and those of the inputs `extra-1`, `extra-2`, ..."""
    from genai_core.data.packing import PackedRows
    from genai_core.data.replay import write_with_replay

    corpus = context.inputs["corpus"]
    training = config.training
    extra: list[Pair] = []
    for role in sorted((role for role in context.inputs if role.startswith("extra-")), key=_number):
        extra += read_pairs(context.inputs[role] / "pairs" / "train.parquet")
    real = read_pairs(corpus / "pairs" / "train.parquet")
    rows, stats = _pair_rows(training, context, real, extra, config.min_real_share, config.max_real_share)
    rows_file = context.workspace.path / "rows" / "train.arrow"
    draft = rows_file.with_suffix(".part")
    replayed = 0
    mixed = {dataset.name for dataset in mixed_datasets(training.objective)}
    datasets = {"pairs": rows_file, **({"text": _text_rows(config, context)[0]} if "text" in mixed else {})}
    datasets |= _retrieval_rows(training, context)
    if config.replay_share and not mixed:
        text = PackedRows.open(_text_rows(config, context)[0])
        replayed = write_with_replay(rows, text, config.replay_share, training.seed, draft)
    else:
        rows.write(draft)
    draft.rename(rows_file)
    held_out_pairs = read_pairs(corpus / "pairs" / "heldout.parquet")
    held_out_file: Path | None = None
    if held_out_pairs:
        try:
            held_out, _ = _pair_rows(training, context, held_out_pairs)
        except DataError as error:
            context.journal.event(f"no held-out answers are measured: {error}")
        else:
            held_out_file = _rewrite(held_out, context, "rows/heldout.arrow")
    result = _train(
        training,
        context,
        rows=rows_file,
        datasets=datasets,
        held_out=held_out_file,
        start={"model": str(context.inputs["model"])},
    )
    shares = {
        "train_rows": float(stats["rows"] + replayed),
        "replayed_rows": float(replayed),
        "real_share": float(stats["real_share"]),
        "real_examples": float(stats["examples"]["real"]),
        "extra_examples": float(stats["examples"]["extra"]),
    }
    return StageResult(metrics={**result.metrics, **shares}, told={**result.told, "rows": stats})


def _text_rows(config: PretrainStage | TuneStage, context: StageContext) -> tuple[Path, dict[str, float]]:
    """Return the file of the corpus's packed rows, with repeated passages among them where asked, and the counts."""
    packed = context.inputs["corpus"] / "packed" / "train.arrow"
    if not config.repeat_share:
        return packed, {}
    from genai_core.data.packing import PackedRows
    from genai_core.data.repeats import write_with_repeats

    text, target = PackedRows.open(packed), context.workspace.path / "rows" / "text.arrow"
    draft = target.with_suffix(".part")
    repeated = write_with_repeats(text, config.repeat_share, config.training.seed, draft)
    draft.rename(target)
    return target, {"train_rows": float(len(text) + repeated), "repeated_rows": float(repeated)}


def _pair_rows(
    training: TrainingConfig,
    context: StageContext,
    real: Sequence[Pair],
    extra: Sequence[Pair] = (),
    min_real_share: float = 0.0,
    max_real_share: float = 1.0,
) -> tuple[PackedRows, dict[str, Any]]:
    """Return the rows of the corpus's own pairs and the extra ones, and what went into them."""
    from genai_core.data.tokenizer import load_tokenizer
    from genai_core.data.tuning_rows import build_tuning_rows

    return build_tuning_rows(
        real,
        extra,
        load_tokenizer(context.inputs["corpus"] / "tokenizer"),
        training.seq_len,
        min_real_share,
        training.seed,
        max_real_share,
        writer_of(training.objective, training.seq_len),
    )


def _find_teacher(training: TrainingConfig, context: StageContext) -> dict[str, Any]:
    """Return the worker's arguments for a teacher, if the objective has one and it has the tokenizer of the corpus.

    Raises:
        ModelError: it has another, or cannot be read.
    """
    if not isinstance(training.objective, Distillation):
        return {}
    from genai_core.data.tokenizer import check_same_tokenizer, load_tokenizer
    from genai_core.models.encoder_names import names_encoder
    from genai_core.models.load import load_base_tokenizer
    from genai_core.models.resolve import base_at

    ref, place = context.refs["teacher"], context.inputs.get("teacher")
    ref = ref if place is None else ref.model_copy(update={"uri": str(place)})
    about = None if place is None else place / "config.json"
    if about is not None and about.is_file() and names_encoder(json.loads(about.read_text(encoding="utf-8"))):
        raise ModelError(
            f"The teacher ({ref.label()}) is an encoder, which predicts no next token. Use a causal model."
        )
    ours = load_tokenizer(context.inputs["corpus"] / "tokenizer")
    check_same_tokenizer(ours, load_base_tokenizer(base_at(ref), ref))
    return {"teacher_ref": _dump(ref)}


def _retrieval_rows(training: TrainingConfig, context: StageContext) -> dict[str, Path]:
    """Return the file of the corpus's retrieval pairs, if the objective learns to embed."""
    embedding = embedding_of(training.objective)
    if embedding is None:
        return {}
    from genai_core.augmentation.retrieval_examples import retrieval_examples
    from genai_core.data.documents import read_documents_file
    from genai_core.data.retrieval_rows import build_retrieval_rows
    from genai_core.data.tokenizer import load_tokenizer

    corpus = context.inputs["corpus"]
    documents = read_documents_file(corpus / "documents" / "train.parquet")
    rows, stats = build_retrieval_rows(
        retrieval_examples(documents, embedding.negatives, training.seed).values(),
        load_tokenizer(corpus / "tokenizer"),
        training.seq_len,
        negatives=embedding.negatives,
        query_instruction=embedding.query_instruction,
        document_instruction=embedding.document_instruction,
    )
    context.journal.event(f"{stats['rows']:,} retrieval pairs", **stats)
    return {"retrieval": _rewrite(rows, context, "rows/retrieval.arrow")}


def _linked_rows(
    training: TrainingConfig, objective: LinkedLm, context: StageContext, side: str
) -> tuple[Path, dict[str, float]]:
    """Return the file of pairs of a side's documents, and what they are."""
    from genai_core.augmentation.link_graph import segments_of
    from genai_core.data.documents import read_documents_file
    from genai_core.data.linked_rows import PairDrawer, segment_tokens, write_pairs_of_segments
    from genai_core.data.tokenizer import document_end_id, load_tokenizer

    corpus = context.inputs["corpus"]
    tokenizer = load_tokenizer(corpus / "tokenizer")
    documents = read_documents_file(corpus / "documents" / f"{side}.parquet")
    segments = segments_of(documents, tokenizer, segment_tokens(training.seq_len), objective)
    end = document_end_id(tokenizer)
    target = context.workspace.path / "rows" / f"pairs-{side}.arrow"
    draft = target.with_suffix(".part")
    found = write_pairs_of_segments(
        PairDrawer(segments, objective.relations, by_in_degree=objective.diverse),
        draft,
        seq_len=training.seq_len,
        draws=objective.draws,
        seed=training.seed,
        end=end,
        pad=end if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    )
    draft.rename(target)
    shares = {name: value for name, value in found.items() if name != "rows"}
    return target, {"train_rows": found["rows"], **shares}


def _train(
    training: TrainingConfig,
    context: StageContext,
    *,
    rows: Path,
    datasets: Mapping[str, Path],
    held_out: Path | None,
    start: dict[str, Any],
) -> StageResult:
    from genai_core.training.plan import place_workers
    from genai_core.training.worker import SUMMARY, TOLD, train_worker

    job = context.job
    start |= _find_teacher(training, context)
    work = context.workspace.path
    asked = {
        **training.model_dump(
            mode="json", include={"objective", "tuning", "seq_len", "global_batch_tokens", "exchange"}
        ),
        "compute": job.compute.model_dump(mode="json"),
    }
    if "model" in start:
        PLANS.lend(Path(start["model"]), asked, work)
    shared_by = training.exchange.workers if isinstance(training.exchange, LocalSgd) else 0
    world_size, threads = place_workers(job.compute, training.rows_per_step(), work, shared_by)
    draft = work / "model"
    shutil.rmtree(draft, ignore_errors=True)
    context.check()
    context.workers.train(
        train_worker,
        {
            "workspace": str(work),
            "storage_uri": job.storage_uri,
            "key": job.key,
            "journal": str(context.journal.path),
            "rows": str(rows),
            "datasets": {dataset.name: str(datasets[dataset.name]) for dataset in mixed_datasets(training.objective)},
            "held_out": str(held_out) if held_out is not None else "",
            "tokenizer": str(context.inputs["corpus"] / "tokenizer"),
            "training": training.model_dump(mode="json"),
            "compute": job.compute.model_dump(mode="json"),
            "output": str(draft),
            **start,
        },
        world_size=world_size,
        threads=threads,
        min_workers=job.compute.min_workers,
    )
    context.check()
    PLANS.learn(draft, asked, work)
    for path in sorted(draft.iterdir()):
        shutil.move(str(path), context.output / path.name)
    metrics = json.loads((work / SUMMARY).read_text(encoding="utf-8"))
    told = json.loads((work / TOLD).read_text(encoding="utf-8"))
    return StageResult(metrics=metrics, told=told)


def _rewrite(rows: Any, context: StageContext, name: str) -> Path:
    """Write rows into the workspace, whole or not at all; a resume makes the same bytes again."""
    target = context.workspace.path / name
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(".part")
    rows.write(draft)
    draft.rename(target)
    return target


def _number(role: str) -> int:
    return int(role.rpartition("-")[2])


def _dump(ref: ArtifactRef | None) -> dict[str, Any] | None:
    return None if ref is None else ref.model_dump(mode="json")

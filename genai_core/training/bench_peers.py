"""The peers that the benchmark of training is held against: transformers' Trainer and TRL's SFTTrainer, with a clock in them."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch

from genai_core.data.collate import IGNORE_INDEX, collate
from genai_core.data.order import rows_for_step
from genai_core.data.packing import PackedRows
from genai_core.training.step import Precision

WARM_STEPS = 3
RATE = 3e-4


@dataclass(frozen=True)
class Size:
    """A Llama-type decoder, its rows and its steps."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    d_ff: int
    vocab: int
    row_tokens: int
    step_tokens: int


@dataclass
class Turn:
    """One contender's run."""

    seconds: list[float]
    """Of each step behind the first ones."""

    tokens: float
    """Useful ones in a step, on average."""

    loss: float
    """Mean of the last steps, in nats."""

    def rate(self) -> float:
        """Return useful tokens a second."""
        return self.tokens / statistics.median(self.seconds)


class Clock:
    """Notes when each step ends, and its loss."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def tick(self, device: torch.device) -> None:
        """Note the end of a step, with everything on the device done."""
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.ends.append(time.monotonic())

    def turn(self, tokens: float) -> Turn:
        """Return what was measured."""
        seconds = np.diff(self.ends)[WARM_STEPS - 1 :].tolist()
        return Turn(seconds, tokens, statistics.fmean(self.losses[-3:]) if self.losses else math.nan)


def run_trainer(size: Size, model: Any, rows: PackedRows, steps: int, precision: Precision) -> Turn:
    """Train with transformers' Trainer on the rows that ours takes, in its order."""
    per_step = size.step_tokens // size.row_tokens
    order = [index for step in range(steps) for index in rows_for_step(0, step, per_step, len(rows))]
    batch = collate(rows.take(order))
    data = [
        {name: batch[name][index] for name in ("input_ids", "labels", "position_ids")} for index in range(len(order))
    ]
    return _run_trainer(model, data, per_step, steps, precision, None, size.step_tokens)


def run_trainer_padded(
    size: Size, model: Any, documents: Sequence[list[int]], steps: int, precision: Precision
) -> Turn:
    """Train with transformers' Trainer, a document a row."""
    per_step = _documents_per_step(size, documents)
    data = [{"input_ids": torch.tensor(document)} for document in documents[: steps * per_step]]
    useful = sum(len(one["input_ids"]) for one in data) / steps

    def pad(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        ids = [one["input_ids"] for one in batch]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=0)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
        labels = torch.where(mask > 0, padded, IGNORE_INDEX)
        return {"input_ids": padded, "attention_mask": mask, "labels": labels}

    return _run_trainer(model, data, per_step, steps, precision, pad, useful)


def _documents_per_step(size: Size, documents: Sequence[list[int]]) -> int:
    return max(1, round(size.step_tokens / statistics.fmean(len(document) for document in documents)))


def _run_trainer(
    model: Any, data: list[Any], per_step: int, steps: int, precision: Precision, collator: Any, useful: float
) -> Turn:
    from torch.utils.data import SequentialSampler
    from transformers import PrinterCallback, Trainer, TrainingArguments

    clock = Clock()

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> SequentialSampler:
            return SequentialSampler(data)

    with tempfile.TemporaryDirectory() as folder:
        trainer = InOrder(
            model=model,
            args=TrainingArguments(**_arguments(folder, per_step, steps, precision, model.device)),
            train_dataset=data,
            data_collator=collator,
            callbacks=[_clock_callback(clock, model.device)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.turn(useful)


def _arguments(folder: str, per_step: int, steps: int, precision: Precision, device: torch.device) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": per_step,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "adam_beta2": 0.95,
        "optim": "adamw_torch_fused",
        "bf16": precision == "bfloat16",
        "use_cpu": device.type == "cpu",
        "save_strategy": "no",
        "report_to": [],
        "logging_steps": 1,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": device.type == "cuda",
    }


def _clock_callback(clock: Clock, device: torch.device) -> Any:
    from transformers import TrainerCallback

    class Ticks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick(device)

        def on_log(self, *_: Any, logs: Mapping[str, float] | None = None, **__: Any) -> None:
            if logs and "loss" in logs:
                clock.losses.append(float(logs["loss"]))

    return Ticks()


def run_sft(
    size: Size, model: Any, documents: Sequence[list[int]], steps: int, precision: Precision, *, packing: bool
) -> Turn:
    """Train with TRL's SFTTrainer, with packing or as it does by default."""
    from datasets import Dataset, disable_progress_bars
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, PrinterCallback

    trl: Any = import_module("trl")
    disable_progress_bars()
    vocabulary = {f"t{index}": index for index in range(size.vocab)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")), eos_token="t0", pad_token="t0"
    )
    per_step = size.step_tokens // size.row_tokens if packing else _documents_per_step(size, documents)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(folder, per_step, steps, precision, model.device) | {"remove_unused_columns": True}
        trainer = trl.SFTTrainer(
            model=model,
            args=trl.SFTConfig(**arguments, max_length=size.row_tokens, packing=packing, dataset_num_proc=None),
            train_dataset=Dataset.from_dict({"input_ids": [list(document) for document in documents]}),
            processing_class=tokenizer,
            callbacks=[_clock_callback(clock, model.device)],
        )
        tokens = sum(len(ids) for ids in trainer.train_dataset["input_ids"]) / len(trainer.train_dataset) * per_step
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.turn(tokens)

"""A model of a few thousand weights, rows with uneven supervision, and a run of the real engine over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from genai_core.config.objectives import CausalLm, Contrastive, Mixture, MixtureTerm
from genai_core.config.training import AdamW, TrainingConfig
from genai_core.data.packing import PackedRows, pack_examples
from genai_core.errors import InterruptedRunError
from genai_core.models.backbone import keep_float64
from genai_core.objectives.registry import build_objectives
from genai_core.training.checkpoint import CheckpointFolder
from genai_core.training.engine import Engine, RunFigures
from genai_core.training.parallel import Group
from genai_core.training.sharding import whole
from genai_core.training.worker import LocalKeeper

VOCAB = 61
SEQ_LEN = 16
EMBEDDING = Contrastive(temperature=0.1)
JOINT = Mixture(terms=(MixtureTerm(objective=CausalLm()), MixtureTerm(objective=EMBEDDING, weight=0.5)))


class MemoryLog:
    """A journal in memory."""

    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.on_metrics: Callable[[int], None] = lambda step: None

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.points.append((step, dict(values)))
        self.on_metrics(step)

    def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
        pass

    def event(self, message: str, **data: Any) -> None:
        self.events.append((message, data))

    def curve(self, name: str) -> list[float]:
        return [values[name] for _, values in self.points if name in values]

    def said(self, words: str) -> list[str]:
        return [message for message, _ in self.events if words in message]


def small_model(dtype: torch.dtype = torch.float64, *, dropout: float = 0.0, seed: int = 0, vocab: int = VOCAB) -> Any:
    """Return a two-layer Llama with weights large enough that gradients are not tiny."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        attention_dropout=dropout,
        initializer_range=0.1,
        pad_token_id=None,
        bos_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(dtype)
    if dtype == torch.float64:
        keep_float64(model)
    return model


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of as many words as the model has, the second of which is its mask."""
    words = {("[MASK]" if number == 1 else f"w{number}"): number for number in range(VOCAB)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, "w0")), mask_token="[MASK]")


def small_rows(examples: int = 60, *, seed: int = 0, vocab: int = VOCAB) -> PackedRows:
    """Return packed rows of two or three segments, each with another share of trained tokens."""
    generator = np.random.Generator(np.random.PCG64(seed))
    made = []
    for _ in range(examples):
        length = int(generator.integers(3, 9))
        ids = generator.integers(2, vocab, length).tolist()
        prompt = int(generator.integers(1, length))
        made.append((ids, [0] * prompt + [1] * (length - prompt)))
    return pack_examples(made, SEQ_LEN)


def small_config(**changes: Any) -> TrainingConfig:
    """Return 20 steps of 8 rows."""
    values: dict[str, Any] = {
        "steps": 20,
        "global_batch_tokens": 8 * SEQ_LEN,
        "seq_len": SEQ_LEN,
        "optimizer": AdamW(learning_rate=3e-3),
        "checkpoint_every_steps": 5,
        "evaluate_every_steps": 10,
        "seed": 3,
    }
    return TrainingConfig(**{**values, **changes})


def alone() -> Group:
    """Return a group of one rank on the CPU."""
    return Group(0, 1, torch.device("cpu"))


def run_small(
    folder: Path,
    model: Any,
    config: TrainingConfig,
    *,
    rows: Any = None,
    micro_batch_rows: int = 8,
    group: Group | None = None,
    log: MemoryLog | None = None,
    **more: Any,
) -> RunFigures:
    """Run the engine in a folder; the model is changed in place."""
    log = log or MemoryLog()
    keeper = LocalKeeper(folder)
    engine = Engine(
        model,
        build_objectives(config.objective, small_tokenizer()),
        small_rows() if rows is None else rows,
        config,
        group=group or alone(),
        checkpoints=CheckpointFolder(keeper, log, config.checkpoint_every_steps),
        log=log,
        micro_batch_rows=micro_batch_rows,
        **more,
    )
    return engine.run()


def weights(model: Any) -> dict[str, torch.Tensor]:
    """Return a copy of the weights."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def whole_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return a copy of the weights, whole where ranks hold cuts of them; every rank must ask."""
    return {name: whole(parameter.detach()).clone() for name, parameter in model.named_parameters()}


def largest_difference(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    """Return the largest difference between two sets of weights."""
    assert set(a) == set(b)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def stop_before_step(step: int) -> Callable[[], bool]:
    """Return a wish to stop that the engine hears when so many steps are made."""
    asked = count()
    return lambda: next(asked) == step


def check_cuts_and_a_stop(
    folder: Path,
    config: TrainingConfig,
    make: Callable[..., Any] = small_model,
    *,
    cuts: tuple[int, ...] = (3,),
    **more: Any,
) -> Any:
    """Check that micro-batches, and a stop with a resume, give the weights of a whole run; return the model of that.

    Args:
        folder: of the runs.
        config: of the training; more than 7 steps, of which 12 show as much as 20.
        make: gives the model; with another `seed` another one.
        cuts: rows of a micro-batch; the whole run has all 8 in one.
        more: for `run_small`.
    """
    whole = make()
    run_small(folder / "whole", whole, config, **more)
    assert largest_difference(weights(whole), weights(make())) > 1e-2, "it has learned something"
    for rows in cuts:
        cut = make()
        run_small(folder / f"cut-{rows}", cut, config, micro_batch_rows=rows, **more)
        assert largest_difference(weights(whole), weights(cut)) < 1e-9
    with pytest.raises(InterruptedRunError):
        run_small(folder / "stopped", make(), config, should_stop=stop_before_step(7), **more)
    resumed = make(seed=99)  # its weights must come from the checkpoint
    run_small(folder / "stopped", resumed, config, **more)
    assert largest_difference(weights(whole), weights(resumed)) == 0.0
    return whole

"""One training run: objective, optimizer, schedule, batch, and what happens to bad steps."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from genai_core.config.base import (
    Config,
    Fraction,
    LeftOutWhile,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from genai_core.config.compute import ComputeConfig
from genai_core.config.model import FullTuning, Tuning
from genai_core.config.objectives import (
    CausalLm,
    Contrastive,
    Distillation,
    LinkedLm,
    Objective,
    kinds_of,
    mixed_datasets,
    parts_of,
)


class AdamW(Config):
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101); matrices decay, vectors do not."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = Field(default=1e-3, description="Peak learning rate.")
    beta1: Fraction = Field(default=0.9, description="Decay of the first moment.")
    beta2: Fraction = Field(default=0.95, description="Decay of the second moment.")
    eps: PositiveFloat = Field(default=1e-8, description="Added to the root of the second moment.")
    weight_decay: NonNegativeFloat = Field(default=0.1, description="Decoupled decay of matrices.")


class Muon(Config):
    """Muon for the matrices of the layers (Jordan et al. 2024), AdamW for embeddings, head and vectors."""

    kind: Literal["muon"] = "muon"
    learning_rate: PositiveFloat = Field(default=0.02, description="Peak learning rate of the layers' matrices.")
    adamw_learning_rate: PositiveFloat = Field(
        default=2e-3, description="Peak learning rate of embeddings, head and vectors."
    )
    momentum: Fraction = Field(default=0.95, description="Decay of the matrices' momentum (Nesterov).")
    beta1: Fraction = Field(default=0.9, description="AdamW's decay of the first moment.")
    beta2: Fraction = Field(default=0.95, description="AdamW's decay of the second moment.")
    eps: PositiveFloat = Field(default=1e-8, description="Added to the root of AdamW's second moment.")
    weight_decay: NonNegativeFloat = Field(default=0.1, description="Decoupled decay of the layers' matrices.")


class Sgd(Config):
    """Gradient descent with momentum, without decay; the inner optimizer of plain local SGD, and a yardstick."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat = Field(default=0.1, description="Peak learning rate.")
    momentum: Fraction = Field(default=0.0, description="Decay of the momentum; 0 = none.")


Optimizer = Annotated[AdamW | Muon | Sgd, Field(discriminator="kind")]


class Wsd(Config):
    """Warm-up, stable, decay: linear up, constant, then 1 - sqrt down (Hägele et al. 2024, arXiv 2405.18392)."""

    kind: Literal["wsd"] = "wsd"
    warmup_fraction: Fraction = Field(default=0.05, description="Share of the steps that warm up.")
    decay_fraction: Fraction = Field(default=0.3, description="Share of the steps that decay, at the end.")


class Cosine(Config):
    """Linear warm-up, then half a cosine down to a floor."""

    kind: Literal["cosine"] = "cosine"
    warmup_fraction: Fraction = Field(default=0.05, description="Share of the steps that warm up.")
    floor: Fraction = Field(default=0.1, description="Last learning rate as a share of the peak.")


Schedule = Annotated[Wsd | Cosine, Field(discriminator="kind")]


class SpikeConfig(Config):
    """What happens to a step whose loss or gradient is not finite, or far above the recent ones."""

    factor: PositiveFloat = Field(
        default=4.0,
        description="A gradient norm above so many times what nine of ten recent ones are below is a spike.",
    )
    window: PositiveInt = Field(default=64, description="Accepted steps that are recent.")
    skip_budget: NonNegativeInt = Field(default=8, description="Skipped steps in a row before the run rolls back.")
    rollback_budget: NonNegativeInt = Field(default=2, description="Roll-backs before the run stops with a diagnosis.")


class ShorterRows(Config):
    """A time at the beginning of a training in which rows are cut."""

    seq_len: PositiveInt = Field(
        le=16_777_216, description="Tokens that rows are cut to; training.seq_len is a multiple of it."
    )
    end: Fraction = Field(gt=0, lt=1, description="Part of the training's steps after which it ends.")


class EveryStep(Config):
    """Gradients are added up over all workers in every step; their number does not show."""

    kind: Literal["every_step"] = "every_step"


class LocalSgd(Config):
    """Workers that learn alone and share what they learned every few steps (local SGD; DiLoCo, arXiv 2311.08105)."""

    kind: Literal["local_sgd"] = "local_sgd"
    workers: PositiveInt = Field(
        default=4, description="Workers; each step's rows are shared among them. Any number of processes may run them."
    )
    inner_steps: PositiveInt = Field(default=25, description="Steps between two exchanges.")
    outer_learning_rate: PositiveFloat = Field(
        default=0.7, description="Step along the workers' mean progress; 1 with outer_momentum 0 = their mean weights."
    )
    outer_momentum: Fraction = Field(default=0.9, lt=1, description="Decay of the outer momentum (Nesterov).")


Exchange = Annotated[EveryStep | LocalSgd, Field(discriminator="kind")]


class TrainingConfig(Config):
    """How one model is trained; everything here defines the result."""

    objective: Objective = Field(default=CausalLm(), description="What is learned.")
    tuning: Tuning = Field(default=FullTuning(), description="All weights, or an adapter.")
    steps: PositiveInt = Field(default=200, le=1_000_000_000, description="Optimizer steps.")
    global_batch_tokens: PositiveInt = Field(
        default=8192,
        le=2_147_483_648,
        description="Tokens of one optimizer step, over all workers; a multiple of seq_len.",
    )
    seq_len: PositiveInt = Field(
        default=256, le=16_777_216, description="Tokens in one packed row; the same as data.seq_len."
    )
    curriculum: Annotated[tuple[ShorterRows, ...], LeftOutWhile(())] = Field(
        default=(),
        description="Shorter rows first, as many tokens a step: steps are faster, and what is near is learned before what is far. "
        "By growing `end`; none = rows of seq_len from the start.",
    )
    optimizer: Optimizer = Field(default=AdamW(), description="The update rule.")
    schedule: Schedule = Field(default=Wsd(), description="The learning rate over the steps.")
    exchange: Annotated[Exchange, LeftOutWhile(EveryStep())] = Field(
        default=EveryStep(), description="What workers tell each other, and when."
    )
    max_grad_norm: PositiveFloat = Field(default=1.0, description="A gradient with a larger norm is scaled down to it.")
    spikes: SpikeConfig = Field(default=SpikeConfig(), description="What happens to bad steps.")
    checkpoint_every_steps: PositiveInt = Field(
        default=25, description="Steps between two checkpoints; a resume or a roll-back returns to one."
    )
    evaluate_every_steps: PositiveInt = Field(
        default=50, description="Steps between two measurements of held-out loss."
    )
    seed: NonNegativeInt = Field(default=0, description="Seed of data order, noise and dropout.")

    @model_validator(mode="after")
    def _rows_fill_the_batch(self) -> TrainingConfig:
        if self.global_batch_tokens % self.seq_len:
            nearest = max(1, round(self.global_batch_tokens / self.seq_len)) * self.seq_len
            raise ValueError(
                f"global_batch_tokens={self.global_batch_tokens:,} is not a multiple of seq_len={self.seq_len:,}. "
                f"Set it to {nearest:,}, or change seq_len."
            )
        for phase in self.curriculum:
            if self.seq_len % phase.seq_len:
                raise ValueError(
                    f"curriculum: rows of seq_len={self.seq_len:,} cannot be cut into rows of {phase.seq_len:,}. "
                    f"Use a divisor of {self.seq_len:,}."
                )
        for dataset in mixed_datasets(self.objective):
            if dataset.rows * self.rows_per_step() < 1 - 1e-9:
                raise ValueError(
                    f"dataset {dataset.name!r} has {dataset.rows:g} of {self.rows_per_step():,} rows, less than one a step: the few "
                    "steps that have one would be taken for spikes, and skipped. Raise its share, or global_batch_tokens to "
                    f"{math.ceil(1 / dataset.rows - 1e-9) * self.seq_len:,}."
                )
        ends = [phase.end for phase in self.curriculum]
        if sorted(set(ends)) != ends:
            raise ValueError(f"curriculum: its ends are {ends}. Let each be larger than the one before.")
        if self.curriculum and isinstance(self.objective, LinkedLm):
            raise ValueError(
                "curriculum cuts rows, and objective.kind='linked_lm' learns from pairs, which it would part. Use one of the two."
            )
        return self

    def length_at(self, step: int) -> int | None:
        """Return the tokens that the rows of a step are cut to; None leaves them whole."""
        return next((phase.seq_len for phase in self.curriculum if step < phase.end * self.steps), None)

    @model_validator(mode="after")
    def _rounds_are_whole(self) -> TrainingConfig:
        exchange = self.exchange
        if not isinstance(exchange, LocalSgd):
            return self
        every = exchange.inner_steps
        for name in ("steps", "checkpoint_every_steps", "evaluate_every_steps"):
            value = getattr(self, name)
            if value % every:
                raise ValueError(
                    f"{name}={value:,} is not a multiple of exchange.inner_steps={every:,}: between two exchanges there is no "
                    f"shared model. Set it to {max(1, round(value / every)) * every:,}, or change inner_steps."
                )
        if exchange.workers > self.rows_per_step():
            raise ValueError(
                f"exchange.workers={exchange.workers:,} is more than the {self.rows_per_step():,} rows of a step. "
                "Lower it, or raise global_batch_tokens."
            )
        return self

    def rows_per_step(self) -> int:
        """Packed rows in one optimizer step."""
        return self.global_batch_tokens // self.seq_len

    def why_not_on(self, compute: ComputeConfig) -> str:
        """Return why it cannot be computed as the workers are to share the work, and what to do; '' if it can."""
        if compute.min_workers and isinstance(self.exchange, LocalSgd):
            return (
                f"compute.min_workers={compute.min_workers} lets workers come and go, and exchange.kind='local_sgd' gives each its "
                "own part of the data. Set compute.min_workers=0."
            )
        if cut_by := compute.cut_by():
            return self.why_not_cut(*cut_by)
        if compute.context_parallel > 1:
            return self.why_not_shared(compute.context_parallel)
        return self.why_no_stages() if compute.pipeline_stages > 1 else ""

    def why_not_shared(self, size: int) -> str:
        """Return why so many ranks cannot share the tokens of its rows (compute.context_parallel), and what to do; '' if they can."""
        key = f"compute.context_parallel={size}"
        kinds = sorted({kind for kind, _ in kinds_of(self.objective)} - {"causal_lm"})
        if kinds:
            return (
                f"{key} shares rows that are read from left to right, but objective.kind={kinds[0]!r} asks for more. Use "
                "'causal_lm', or compute.context_parallel=1."
            )
        if reason := self._why_not_together(f"{key} needs all ranks in every layer", "compute.context_parallel=1"):
            return reason
        for tokens in (self.seq_len, *(phase.seq_len for phase in self.curriculum)):
            if tokens % (2 * size):
                return (
                    f"{key} parts a row into {2 * size} chunks, but a row has {tokens:,} tokens. Let seq_len, in curriculum too, "
                    f"be a multiple of {2 * size}."
                )
        return ""

    def why_not_cut(self, key: str = "compute.sharding='fully_shard'", without: str = "compute.sharding='none'") -> str:
        """Return why it cannot be computed on cut weights, and what to do; '' if it can.

        Args:
            key: what cuts them.
            without: what leaves them whole.
        """
        if not isinstance(self.optimizer, AdamW):
            return (
                f"{key} cuts matrices, but optimizer.kind={self.optimizer.kind!r} "
                f"is not computed from rows alone. Use optimizer.kind='adamw', or {without}."
            )
        return self._why_not_together(f"{key} needs all ranks in every layer", without)

    def why_no_stages(self) -> str:
        """Return why it cannot be computed in a pipeline (compute.pipeline_stages), and what to do; '' if it can."""
        for part in parts_of(self.objective):
            if isinstance(part, Contrastive | Distillation | LinkedLm):
                return (
                    f"compute.pipeline_stages passes rows on from layer to layer to the probabilities of their tokens, but "
                    f"objective.kind={part.kind!r} needs more of the model than those. Use compute.pipeline_stages=1."
                )
        return self._why_not_together(
            "compute.pipeline_stages needs all of a team in every pass", "compute.pipeline_stages=1"
        )

    def _why_not_together(self, needs: str, without: str) -> str:
        if isinstance(self.exchange, EveryStep):
            return ""
        return (
            f"{needs}, but exchange.kind={self.exchange.kind!r} lets workers learn alone. "
            f"Use exchange.kind='every_step', or {without}."
        )

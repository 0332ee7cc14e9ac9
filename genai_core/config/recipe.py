"""A recipe: the one object that a person writes."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, Field, model_validator

from genai_core.config.base import Config, Fraction, NonNegativeInt
from genai_core.config.comparison import ComparisonConfig
from genai_core.config.compute import ComputeConfig
from genai_core.config.data import AugmentationConfig, BaseTokenizer, TrainTokenizer
from genai_core.config.erasure import ErasureConfig
from genai_core.config.lifecycle import CorrectionConfig, EvaluationConfig, PromotionConfig, RecursionConfig
from genai_core.config.model import Base, ScratchBase
from genai_core.config.objectives import (
    HidesTokens,
    LinkedLm,
    Ul2,
    embedding_of,
    ends_causal,
    kinds_of,
    mixed_datasets,
    needs_decoder,
    parts_of,
    writer_of,
)
from genai_core.config.training import AdamW, LocalSgd, TrainingConfig

C = TypeVar("C", bound=BaseModel)


def with_seed(config: C, seed: int) -> C:
    """Return a copy whose every `seed` field, at any depth, is raised by the recipe's one seed."""
    changes: dict[str, object] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name == "seed":
            changes[name] = value + seed
        elif isinstance(value, BaseModel):
            changes[name] = with_seed(value, seed)
    return config.model_copy(update=changes)


class Recipe(Config):
    """The whole mission: text in, a registered model out."""

    name: str = Field(
        max_length=63,
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        description="Short name; artifacts and runs are called after it.",
    )
    description: str = Field(default="", description="One sentence for the list of recipes.")
    seed: NonNegativeInt = Field(default=0, description="Added to every stage's own seed.")
    data: AugmentationConfig = Field(
        default=AugmentationConfig(), description="Text to documents, pairs and packed rows."
    )
    base: Base = Field(default=ScratchBase(), description="The model that training starts from.")
    pretraining: TrainingConfig = Field(default=TrainingConfig(), description="Learning the domain's text.")
    repeat_share: Fraction = Field(
        default=0.0,
        description="Share of the rows of text, in pre-training and replay, in which short passages stand twice; below 1. A small "
        "model from scratch learns to copy from its context by them.",
    )
    finetuning: TrainingConfig = Field(
        default=TrainingConfig(steps=150, optimizer=AdamW(learning_rate=5e-4)),
        description="Learning to answer, from instruction pairs.",
    )
    replay_share: Fraction = Field(
        default=0.3,
        description="Share of rows in every tuning that are the corpus's own text, against forgetting it; below 1.",
    )
    recursion: RecursionConfig = Field(default=RecursionConfig(), description="Recursive synthetic data.")
    correction: CorrectionConfig = Field(default=CorrectionConfig(), description="Self-correction.")
    evaluation: EvaluationConfig = Field(default=EvaluationConfig(), description="What is measured.")
    erasure: ErasureConfig = Field(
        default=ErasureConfig(), description="Concept erasure; computed by the flow `erasure` alone."
    )
    comparison: ComparisonConfig = Field(
        default=ComparisonConfig(), description="Masked against causal language modelling; the flow `comparison` alone."
    )
    promotion: PromotionConfig = Field(default=PromotionConfig(), description="Registration and the gate.")
    compute: ComputeConfig = Field(
        default=ComputeConfig(), description="Where it runs; never part of a result's identity."
    )

    @model_validator(mode="after")
    def _tokenizer_fits(self) -> Recipe:
        if isinstance(self.base, ScratchBase) and isinstance(self.data.tokenizer, BaseTokenizer):
            raise ValueError(
                "data.tokenizer.kind='base' needs a base model that has one, but base.kind='scratch'. "
                "Use data.tokenizer.kind='train', or another base."
            )
        if not isinstance(self.base, ScratchBase) and isinstance(self.data.tokenizer, TrainTokenizer):
            raise ValueError(
                f"data.tokenizer.kind='train' would not match the vocabulary of base.kind={self.base.kind!r}. "
                "Use data.tokenizer.kind='base'."
            )
        return self

    @model_validator(mode="after")
    def _objectives_fit(self) -> Recipe:
        for place, training in self.trainings().items():
            objective = training.objective
            hides = any(isinstance(part, HidesTokens) and not part.mask_token for part in parts_of(objective))
            if hides and isinstance(self.data.tokenizer, TrainTokenizer) and not self.data.tokenizer.mask_token:
                raise ValueError(
                    f"{place}.objective.kind={objective.kind!r} hides tokens, but the tokenizer has no mask token. "
                    "Set data.tokenizer.mask_token=true."
                )
            if (
                any(isinstance(part, Ul2) for part in parts_of(objective))
                and isinstance(self.data.tokenizer, TrainTokenizer)
                and not self.data.tokenizer.sentinels
            ):
                raise ValueError(
                    f"{place}.objective.kind={objective.kind!r} marks what it leaves out, but the tokenizer has no sentinels. "
                    "Set data.tokenizer.sentinels, to 32 for rows of 256 tokens."
                )
            datasets = {dataset.name for dataset in mixed_datasets(objective)}
            for kind, dataset in kinds_of(objective):
                read = {dataset} if dataset else datasets
                if read != {"retrieval"} if kind == "contrastive" else "retrieval" in read:
                    raise ValueError(
                        f"{place}.objective: kind='contrastive' learns from dataset 'retrieval', and nothing else does. Write "
                        "{kind: mixture, datasets: [{name: retrieval, rows: 0.5}, {name: pairs, rows: 0.5}], terms: [{objective: "
                        "{kind: contrastive}, dataset: retrieval}, {objective: {kind: causal_lm}, dataset: pairs}]}."
                    )
            if reason := training.why_not_on(self.compute):
                raise ValueError(f"{place}: {reason}")
            workers = training.exchange.workers if isinstance(training.exchange, LocalSgd) else self.compute.workers
            if self.compute.workers and workers % self.compute.workers:
                raise ValueError(
                    f"compute.workers={self.compute.workers} processes cannot share {place}.exchange.workers={workers} evenly. "
                    f"Set compute.workers to a divisor of {workers}; any of them gives the same result."
                )
            if place == "pretraining":
                continue
            writer = writer_of(objective, training.seq_len)
            if writer is None and not ends_causal(objective):
                raise ValueError(
                    f"{place}.objective.kind={objective.kind!r} does not learn to write, as the stages after it ask. Use it in "
                    "pretraining, or one that is causal too, such as kind='hybrid_lm', or kind='masked_diffusion'."
                )
            first = writer_of(self.finetuning.objective, training.seq_len)
            is_run = place != "recursion.training" or self.recursion.generations > 0
            if is_run and writer != first:
                raise ValueError(
                    f"{place}.objective.kind={objective.kind!r} does not write as finetuning.objective.kind="
                    f"{self.finetuning.objective.kind!r} has taught the model to. Give both the same objective."
                )
            embedding = embedding_of(self.finetuning.objective)
            if is_run and embedding is not None and embedding != embedding_of(objective):
                raise ValueError(
                    f"{place}.objective.kind={objective.kind!r} does not embed as finetuning.objective has taught the model to, which "
                    "would unlearn it. Give both the same objective."
                )
            if training.curriculum:
                raise ValueError(
                    f"{place}.curriculum cuts rows, and would part prompts from their answers. Use it in pretraining only."
                )
        if mixed_datasets(self.pretraining.objective) and self.pretraining.curriculum:
            raise ValueError(
                "pretraining.curriculum cuts rows, and pretraining.objective.datasets may have instruction pairs, whose prompts "
                "it would part from their answers. Use one of the two."
            )
        if isinstance(self.base, ScratchBase) and self.base.is_encoder():
            if needs_decoder(self.pretraining.objective):
                raise ValueError(
                    f"base.architecture={self.base.architecture!r} is an encoder and sees both sides, but "
                    f"pretraining.objective.kind={self.pretraining.objective.kind!r} has a part that is learned with decoders only. "
                    "Use 'masked_lm', 'linked_lm' or 'masked_diffusion', or base.architecture='llama'."
                )
            if cut_by := self.compute.cut_by():
                raise ValueError(
                    f"{cut_by[0]} cuts decoders, but base.architecture={self.base.architecture!r} is an encoder. Use {cut_by[1]}."
                )
            if self.compute.pipeline_stages > 1:
                raise ValueError(
                    f"compute.pipeline_stages={self.compute.pipeline_stages} cuts decoders, but base.architecture="
                    f"{self.base.architecture!r} is an encoder. Use compute.pipeline_stages=1."
                )
        if isinstance(self.base, ScratchBase) and self.compute.pipeline_stages > self.base.n_layers:
            raise ValueError(
                f"compute.pipeline_stages={self.compute.pipeline_stages} is more than base.n_layers={self.base.n_layers}. "
                "Set it to at most that."
            )
        return self

    @model_validator(mode="after")
    def _rows_fit(self) -> Recipe:
        if self.pretraining.seq_len != self.data.seq_len:
            raise ValueError(
                f"pretraining.seq_len={self.pretraining.seq_len} differs from data.seq_len={self.data.seq_len}, the length "
                "of the packed rows. Set both to the same value."
            )
        if self.repeat_share and isinstance(self.pretraining.objective, LinkedLm):
            raise ValueError(
                f"repeat_share={self.repeat_share:g} repeats passages in rows of text, but pretraining.objective.kind="
                "'linked_lm' trains on pairs of texts. Set repeat_share to 0."
            )
        if self.repeat_share >= 1.0:
            raise ValueError("repeat_share=1 leaves no text to learn from. Set it below 1.")
        for place, training in self.trainings().items():
            if self.replay_share and training.seq_len != self.data.seq_len:
                raise ValueError(
                    f"{place}.seq_len={training.seq_len} differs from data.seq_len={self.data.seq_len}, but rows of both are "
                    f"mixed (replay_share={self.replay_share:g}). Set both to the same value, or replay_share to 0."
                )
            if self.replay_share >= 1.0:
                raise ValueError("replay_share=1 leaves no instructions to learn from. Set it below 1.")
        if isinstance(self.base, ScratchBase):
            for place, seq_len in (
                ("data", self.data.seq_len),
                *((place, training.seq_len) for place, training in self.trainings().items()),
            ):
                if seq_len > self.base.max_seq_len:
                    raise ValueError(
                        f"{place}.seq_len={seq_len} is longer than the model takes (base.max_seq_len="
                        f"{self.base.max_seq_len}). Lower it, or raise base.max_seq_len."
                    )
        return self

    def seeded(self) -> Recipe:
        """Return the recipe with its one seed added to every stage's own, and itself set to 0."""
        return with_seed(self, self.seed).model_copy(update={"seed": 0})

    def longest_sequence(self) -> int:
        """Return the longest sequence that any stage trains on, in tokens."""
        return max(self.data.seq_len, *(training.seq_len for training in self.trainings().values()))

    def trainings(self) -> dict[str, TrainingConfig]:
        """Return every training of the mission, by its place."""
        return {
            "pretraining": self.pretraining,
            "finetuning": self.finetuning,
            "recursion.training": self.recursion.training,
            "correction.training": self.correction.training,
        }

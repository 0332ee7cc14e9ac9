"""The later stages: recursive synthetic data, self-correction, evaluation, promotion."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from genai_core.config.base import (
    Config,
    Fraction,
    LeftOutWhile,
    NonNegativeFloat,
    NonNegativeInt,
    NotIdentity,
    PositiveFloat,
    PositiveInt,
)
from genai_core.config.generation import SamplingConfig, Unmasking
from genai_core.config.training import AdamW, TrainingConfig


class SynthesisConfig(Config):
    """The model writes instruction and answer pairs about real documents; a machine verifies them."""

    prompts: PositiveInt = Field(
        default=256,
        le=1_000_000_000,
        description="Real training pairs whose documents the model is asked new requests about.",
    )
    samples_per_prompt: PositiveInt = Field(default=2, le=10_000, description="New requests for each of them.")
    sampling: SamplingConfig = Field(
        default=SamplingConfig(temperature=1.0, max_new_tokens=48), description="How they are sampled."
    )
    min_accepted: NonNegativeInt = Field(default=8, description="Fewer accepted pairs than this: the guard refuses.")
    seed: NonNegativeInt = Field(default=0, description="Seed of the choice of prompts.")


class GuardConfig(Config):
    """When a generation is refused. Every threshold is relative to the null band of a real-only arm."""

    max_heldout_loss_increase: Fraction = Field(
        default=0.02,
        description="Held-out real loss may exceed the real-only arm's by this share, beyond its interval.",
    )
    min_diversity_ratio: Fraction = Field(
        default=0.9, description="Least variety of samples (distinct-2, Vendi score), as a share of generation 0's."
    )
    max_self_bleu_increase: Fraction = Field(
        default=0.05, description="Largest rise of the samples' self-BLEU above generation 0's."
    )
    min_tail_coverage_ratio: Fraction = Field(
        default=0.85, description="Least recall of rare real tokens, as a share of generation 0's."
    )
    max_duplicate_share: Fraction = Field(
        default=0.5, description="Largest share of raw samples that repeat the answer to another prompt."
    )
    min_right_ratio: Fraction = Field(
        default=0.9, description="Least rate of right answers, as a share of the parent's, beyond its interval."
    )


class RecursionConfig(Config):
    """Generations of synthesise, verify, mix, train, measure."""

    generations: NonNegativeInt = Field(default=2, le=100, description="Most generations; 0 leaves recursion out.")
    synthesis: SynthesisConfig = Field(default=SynthesisConfig(), description="How synthetic pairs are written.")
    min_real_share: Fraction = Field(default=0.5, description="Least share of real tokens in the mixed training rows.")
    max_real_share: Fraction = Field(
        default=1.0,
        description="Largest share of real tokens in the mixed training rows, so that few synthetic pairs weigh anything.",
    )
    training: TrainingConfig = Field(
        default=TrainingConfig(steps=60, optimizer=AdamW(learning_rate=3e-4)),
        description="Training of each generation.",
    )
    probe_samples: PositiveInt = Field(
        default=128, le=1_000_000_000, description="Held-out prompts sampled to measure diversity."
    )
    guard: GuardConfig = Field(default=GuardConfig(), description="When a generation is refused.")

    @model_validator(mode="after")
    def _shares_in_order(self) -> RecursionConfig:
        if self.min_real_share > self.max_real_share:
            raise ValueError(
                f"recursion.min_real_share={self.min_real_share:g} is above max_real_share={self.max_real_share:g}. "
                "Lower one or raise the other."
            )
        return self


class CorrectionConfig(Config):
    """Self-correction at training time, at generation time and after the fact."""

    prompts: PositiveInt = Field(
        default=256, le=1_000_000_000, description="New requests about training documents that answers are sampled for."
    )
    samples_per_prompt: PositiveInt = Field(
        default=4, le=10_000, description="Answers sampled for each request; the verified ones are learned from."
    )
    invented_names: bool = Field(
        default=True,
        description="Ask for calls of the documents' objects under invented names: what is known by heart is no help.",
    )
    sampling: SamplingConfig = Field(
        default=SamplingConfig(temperature=0.8, max_new_tokens=48), description="How they are sampled."
    )
    training: TrainingConfig = Field(
        default=TrainingConfig(steps=60, optimizer=AdamW(learning_rate=2e-4)),
        description="Learning from the verified answers.",
    )
    max_real_share: Fraction = Field(
        default=0.5,
        description="Largest share of real pairs' tokens beside the verified answers that are learned from.",
    )
    best_of: PositiveInt = Field(
        default=4, le=10_000, description="Candidates for one prompt at generation time; the verifier chooses."
    )
    measure_prompts: PositiveInt = Field(default=300, description="Held-out prompts of the paired measurement.")
    seed: NonNegativeInt = Field(default=0, description="Seed of the choice of prompts.")


class Question(Config):
    """A question of your own with a grade: what the model must still know, or must now know."""

    ask: str = Field(min_length=1, description="The question.")
    accept: tuple[str, ...] = Field(
        min_length=1,
        description="Regular expressions, upper and lower case alike; the answer is right if one is found in it.",
    )

    @field_validator("accept")
    @classmethod
    def _expressions_compile(cls, accept: tuple[str, ...]) -> tuple[str, ...]:
        for expression in accept:
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"{expression!r} is no regular expression: {error}") from None
        return accept

    def accepts(self, answer: str) -> bool:
        """Return whether an answer is right."""
        return any(re.search(expression, answer, re.IGNORECASE) for expression in self.accept)


class EvaluationConfig(Config):
    """What is measured of a model, on held-out or sealed data."""

    max_documents: PositiveInt = Field(default=400, description="Most documents that bits per byte are measured on.")
    max_prompts: PositiveInt = Field(default=300, description="Most prompts of each task.")
    max_new_tokens: PositiveInt = Field(
        default=48, le=1_048_576, description="Longest answer, in tokens; answers are greedy."
    )
    bootstrap_draws: PositiveInt = Field(
        default=2000, le=1_000_000, description="Resamples of a paired bootstrap interval."
    )
    shots: Annotated[NonNegativeInt, NotIdentity()] = Field(
        default=0,
        description="Ask the base model also with so many solved examples before each question, beside which tuning must "
        "pay; 0 leaves it out.",
    )
    unmasking: Annotated[Unmasking, LeftOutWhile(Unmasking())] = Field(
        default=Unmasking(), description="How a model of a diffusion objective fills in its answers."
    )
    bound_samples: Annotated[int, Field(ge=2), LeftOutWhile(16)] = Field(
        default=16, description="Draws of the masks for each text whose likelihood a diffusion objective bounds."
    )
    questions: Annotated[tuple[Question, ...], LeftOutWhile(())] = Field(
        default=(), description="Questions with graded answers, asked of base and candidate beside the held-out pairs."
    )
    seed: NonNegativeInt = Field(default=0, description="Seed of the choice of cases and of the bootstrap.")


class GateConfig(Config):
    """The rules by which a candidate may become champion."""

    max_bits_per_byte_increase: NonNegativeFloat = Field(
        default=0.15, description="Allowed rise of bits per byte on sealed text against the base, in bits."
    )
    min_answer_loss_gain: NonNegativeFloat = Field(
        default=0.0, description="Answer loss must fall against the base by at least this, in nats a token."
    )
    max_right_drop: NonNegativeFloat = Field(
        default=0.02,
        description="Right rate may fall against the champion by this; more is refused where the interval shows a fall.",
    )
    min_cases: PositiveInt = Field(default=20, description="Fewer cases than this decide nothing: refused.")


class PromotionConfig(Config):
    """Where the model is registered and what it must show."""

    model_name: str = Field(
        default="pydocs",
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="Name in the model registry; each recipe should have its own.",
    )
    gate: GateConfig = Field(default=GateConfig(), description="What a candidate must show to become champion.")
    force: bool = Field(default=False, description="Promote a version again that was rolled back before.")
    approval: Annotated[bool, NotIdentity()] = Field(
        default=False,
        description="Where the gate passes, ask a person before the champion moves: a deployed run is suspended and shows the "
        "evidence; one from the command line registers the candidate and moves nothing.",
    )
    approval_hours: Annotated[PositiveFloat, NotIdentity()] = Field(
        default=168.0,
        description="Hours that a suspended run waits for the decision; then it fails, and can be run again.",
    )
    max_logit_difference: PositiveFloat = Field(
        default=1e-4, description="Largest difference between the published folder's logits and ours."
    )

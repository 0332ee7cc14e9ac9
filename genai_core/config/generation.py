"""How completions are sampled."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from genai_core.config.base import Config, Fraction, LeftOutWhile, NonNegativeFloat, NonNegativeInt, PositiveInt


class Unmasking(Config):
    """In which order, and how many at once, masks are filled in."""

    tokens_per_pass: PositiveInt = Field(
        default=1, description="Masks of a row that are filled at once; more is faster and less coherent."
    )
    order: Literal["confidence", "margin", "entropy", "drawn", "random", "left"] = Field(
        default="confidence",
        description="Which masks come first: the surest by top probability, by its lead over the second, or by entropy; 'drawn' "
        "by the probability of the token just drawn (LLaDA's rule); 'random'; or from the 'left'.",
    )
    block_length: NonNegativeInt = Field(
        default=0, description="Masks of a row that are finished before the next ones are begun; 0 = all together."
    )


class UnmaskingConfig(Unmasking):
    """How a model that sees both sides fills in masks. Temperature 0 takes the likeliest token."""

    temperature: NonNegativeFloat = Field(default=1.0, description="Logits are divided by it; 0 = the likeliest token.")
    top_k: NonNegativeInt = Field(default=0, description="Keep only the k most likely tokens; 0 = all.")
    top_p: Fraction = Field(default=1.0, description="Keep the smallest set of tokens with this probability mass.")
    seed: NonNegativeInt = Field(default=0, description="Seed of the noise.")


class DiffusionWriter(Config):
    """How a model of a diffusion objective writes; kept beside its weights, because they do not say it."""

    mask_token: str = Field(default="", description="Entry that stands for what is masked; '' = the tokenizer's mask.")
    reads: Literal["own", "previous"] = Field(default="own", description="Where a masked token is predicted.")
    block_length: NonNegativeInt = Field(
        default=0, description="Tokens of a block, blocks being written from left to right; 0 = all is one block."
    )
    answer_length: NonNegativeInt = Field(
        default=0,
        description="Tokens that an answer has at least, filled up with end marks; 0 = as many as are asked for.",
    )
    row_tokens: PositiveInt = Field(description="Tokens of the rows that it was trained on.")


class SamplingConfig(Config):
    """One way of sampling. Temperature 0 is greedy."""

    temperature: NonNegativeFloat = Field(default=1.0, description="Logits are divided by it; 0 = greedy.")
    top_k: NonNegativeInt = Field(default=0, description="Keep only the k most likely tokens; 0 = all.")
    top_p: Fraction = Field(default=1.0, description="Keep the smallest set of tokens with this probability mass.")
    max_new_tokens: PositiveInt = Field(default=64, le=1_048_576, description="Longest completion, in tokens.")
    seed: NonNegativeInt = Field(default=0, description="Seed of the sampling noise.")
    unmasking: Annotated[Unmasking, LeftOutWhile(Unmasking())] = Field(
        default=Unmasking(),
        description="How a model of a diffusion objective fills in its answer; no other looks at it.",
    )

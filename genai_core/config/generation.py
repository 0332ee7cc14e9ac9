"""How completions are sampled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from genai_core.config.base import Config, Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt


class SamplingConfig(Config):
    """One way of sampling. Temperature 0 is greedy."""

    temperature: NonNegativeFloat = Field(default=1.0, description="Logits are divided by it; 0 = greedy.")
    top_k: NonNegativeInt = Field(default=0, description="Keep only the k most likely tokens; 0 = all.")
    top_p: Fraction = Field(default=1.0, description="Keep the smallest set of tokens with this probability mass.")
    max_new_tokens: PositiveInt = Field(default=64, description="Longest completion, in tokens.")
    seed: NonNegativeInt = Field(default=0, description="Seed of the sampling noise.")


class UnmaskingConfig(Config):
    """How a model that sees both sides fills in masks. Temperature 0 takes the likeliest token."""

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
    temperature: NonNegativeFloat = Field(default=1.0, description="Logits are divided by it; 0 = the likeliest token.")
    top_k: NonNegativeInt = Field(default=0, description="Keep only the k most likely tokens; 0 = all.")
    top_p: Fraction = Field(default=1.0, description="Keep the smallest set of tokens with this probability mass.")
    seed: NonNegativeInt = Field(default=0, description="Seed of the noise.")

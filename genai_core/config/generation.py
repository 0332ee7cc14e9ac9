"""How completions are sampled."""

from __future__ import annotations

from pydantic import Field

from genai_core.config.base import Config, Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt


class SamplingConfig(Config):
    """One way of sampling. Temperature 0 is greedy."""

    temperature: NonNegativeFloat = Field(default=1.0, description="Logits are divided by it; 0 = greedy.")
    top_k: NonNegativeInt = Field(default=0, description="Keep only the k most likely tokens; 0 = all.")
    top_p: Fraction = Field(default=1.0, description="Keep the smallest set of tokens with this probability mass.")
    max_new_tokens: PositiveInt = Field(default=64, description="Longest completion, in tokens.")
    seed: NonNegativeInt = Field(default=0, description="Seed of the sampling noise.")

"""Which tokens are hidden from a masked language model, and what stands in their place."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from genai_core.config.base import Config, Fraction, PositiveInt


class TokenUnit(Config):
    """Single tokens (BERT, RoBERTa)."""

    kind: Literal["token"] = "token"


class WordUnit(Config):
    """Whole words, all pieces of one together."""

    kind: Literal["word"] = "word"


class SpanUnit(Config):
    """Spans of random length (SpanBERT, GPT-BERT)."""

    kind: Literal["span"] = "span"
    lengths: Literal["uniform", "geometric"] = Field(
        default="uniform",
        description="'uniform' from 1 to `longest` (GPT-BERT); 'geometric' with p = 0.2 up to 10, 3.8 on average (SpanBERT).",
    )
    longest: PositiveInt = Field(default=3, description="Longest span of 'uniform' lengths.")
    whole_words: bool = Field(default=False, description="Count and cut in words instead of tokens.")


Unit = Annotated[TokenUnit | WordUnit | SpanUnit, Field(discriminator="kind")]


class Masking(Config):
    """What is hidden."""

    rate: Fraction = Field(default=0.15, gt=0, description="Share of the tokens that is hidden, at the start.")
    final_rate: Fraction | None = Field(
        default=None, gt=0, description="The same at the end of training, linear in between; none = it stays."
    )
    unit: Unit = Field(default=TokenUnit(), description="What is hidden together.")
    mask_share: Fraction = Field(default=0.8, description="Share of the hidden tokens that the mask token stands for.")
    random_share: Fraction = Field(
        default=0.1, description="Share of the hidden tokens that a random token stands for; the rest stays."
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> Masking:
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError(
                f"mask_share={self.mask_share:g} and random_share={self.random_share:g} are more than 1 together. "
                "Lower one of them."
            )
        return self

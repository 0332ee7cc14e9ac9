"""Composing texts with a model that was trained causally or with masks, and what is measured of them (arXiv 2405.12630)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from genai_core.config.base import Config, Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt


class Continue(Config):
    """The beginning of a document is given, the rest is written: token by token, or masks that are filled in."""

    kind: Literal["continue"] = "continue"
    given: Fraction = Field(
        default=0.5, gt=0, lt=1, description="Share of the tokens that is given; cut where a word begins."
    )
    filling: Literal["mask_predict", "gibbs"] = Field(
        default="mask_predict",
        description="How a masked model writes: all masks at once and the least certain anew, fewer each time; or, after one such "
        "pass, sweeps that draw one token after the other anew, given all others (a pass for every token).",
    )
    passes: PositiveInt = Field(default=10, description="Passes of mask-predict, or sweeps of Gibbs sampling.")


Strategy = Literal["random", "stop_words", "punctuation"]


class Refill(Config):
    """Some tokens of a document are masked and filled in, the surest first; only for masked models."""

    kind: Literal["refill"] = "refill"
    rate: Fraction = Field(
        default=0.3, gt=0, description="Share of the tokens that is masked; less where the strategy finds fewer."
    )
    strategy: Strategy = Field(
        default="random", description="Which tokens: any, those of English stop words, or punctuation."
    )


Way = Annotated[Continue | Refill, Field(discriminator="kind")]


class ComposingConfig(Config):
    """From which documents texts are composed, how tokens are drawn, and what is measured."""

    documents: PositiveInt = Field(default=200, description="Training documents that texts are composed from.")
    tokens: PositiveInt = Field(default=96, description="Tokens of a document that are used, from its beginning.")
    min_tokens: PositiveInt = Field(default=32, description="Documents with fewer tokens are left out.")
    temperature: NonNegativeFloat = Field(default=0.8, description="Logits are divided by it; 0 = the likeliest token.")
    top_p: Fraction = Field(default=1.0, description="Keep the smallest set of tokens with this probability mass.")
    budget_words: PositiveInt = Field(
        default=3000, description="Words that diversity is measured on: it falls with their number, so all get as many."
    )
    copy_words: PositiveInt = Field(
        default=8, description="Words in a row that count as copied where they stand in a training document."
    )
    label_field: str = Field(
        default="kind",
        description="Field of a document whose value a classifier learns from the texts: 'kind' (pydocs: function, class, ...), "
        "'group', or a field of the table that the corpus was made from; '' = no downstream score.",
    )
    bootstrap_draws: PositiveInt = Field(default=1000, le=1_000_000, description="Resamples of the intervals.")
    seed: NonNegativeInt = Field(
        default=0, description="Seed of the choice of documents, of the masks and of the noise."
    )

    @model_validator(mode="after")
    def _lengths_in_order(self) -> ComposingConfig:
        if self.min_tokens < 2 or self.min_tokens > self.tokens:
            raise ValueError(
                f"min_tokens={self.min_tokens} must be at least 2 and at most tokens={self.tokens}. Correct one of them."
            )
        return self


class ComparisonConfig(Config):
    """Masked against causal language modelling: the same data, size and steps, and the texts of both side by side."""

    composing: ComposingConfig = Field(default=ComposingConfig(), description="Which texts, and what is measured.")
    continuing: Continue = Field(default=Continue(), description="How both models continue a document.")
    refills: tuple[Refill, ...] = Field(
        default=(Refill(), Refill(strategy="stop_words"), Refill(strategy="punctuation")),
        description="What the masked model fills in besides.",
    )

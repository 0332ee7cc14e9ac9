"""The slice of a recipe that defines each stage's result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from genai_core.config.base import Config, Fraction, LeftOutWhile, NonNegativeInt, PositiveInt
from genai_core.config.comparison import ComposingConfig, Refill, Way
from genai_core.config.data import AugmentationConfig
from genai_core.config.erasure import ErasureConfig
from genai_core.config.generation import SamplingConfig
from genai_core.config.lifecycle import EvaluationConfig, GuardConfig, SynthesisConfig
from genai_core.config.model import Base
from genai_core.config.training import TrainingConfig


class AugmentStage(Config):
    """Inputs: `source` (the text), `base` (only when the tokenizer comes with it). Output: dataset."""

    augmentation: AugmentationConfig


class PretrainStage(Config):
    """Inputs: `corpus`, `base` (unless from scratch), `teacher` (a model, for distillation). Output: model."""

    base: Base
    training: TrainingConfig
    repeat_share: Annotated[Fraction, LeftOutWhile(0.0)] = Field(
        default=0.0, description="Share of rows in which short passages stand twice, for learning to copy."
    )


class TuneStage(Config):
    """Train on instruction pairs: fine-tuning, a generation, a control arm, learning from corrections.

    Inputs: `model`, `corpus`, `teacher` (a model, for distillation), and any number of `extra-1`, `extra-2`, ... (datasets
    with pairs/train.parquet).
    Output: model.
    """

    training: TrainingConfig
    min_real_share: Fraction = Field(default=0.0, description="Least share of trained tokens that come from `corpus`.")
    max_real_share: Annotated[Fraction, LeftOutWhile(1.0)] = Field(
        default=1.0, description="Largest share of trained tokens that come from `corpus`, where there are extra pairs."
    )
    replay_share: Annotated[Fraction, LeftOutWhile(0.0)] = Field(
        default=0.0, description="Share of rows that are the corpus's own text, against forgetting it."
    )
    repeat_share: Annotated[Fraction, LeftOutWhile(0.0)] = Field(
        default=0.0, description="Share of the replayed rows in which short passages stand twice."
    )


class SynthesizeStage(Config):
    """Inputs: `model`, `corpus`, `extra-1`, ... (earlier generations' data). Output: dataset."""

    synthesis: SynthesisConfig
    generation: PositiveInt = Field(description="Number of the generation, from 1.")


class MeasureGenerationStage(Config):
    """Inputs: `candidate`, `parent`, `origin` (generation 0), `control` (real-only arm), `corpus`, `synthetic`; after the
    first generation `measured`, the report of the one before.

    Output: report with the guard's verdict.
    """

    evaluation: EvaluationConfig
    guard: GuardConfig
    probe_samples: PositiveInt
    generation: PositiveInt
    min_accepted: int = 0


class SampleCorrectionsStage(Config):
    """Inputs: `model`, `corpus`. Output: dataset of verified answers."""

    prompts: PositiveInt
    samples_per_prompt: PositiveInt
    invented_names: bool
    sampling: SamplingConfig
    seed: NonNegativeInt


class MeasureCorrectionStage(Config):
    """Inputs: `before`, `after`, `corpus`. Output: report with transition tables of the three moments."""

    best_of: PositiveInt
    measure_prompts: PositiveInt
    sampling: SamplingConfig
    evaluation: EvaluationConfig
    seed: NonNegativeInt


class EvaluateStage(Config):
    """Inputs: `model`, `corpus`. Output: report. `sealed` is opened only by promotion."""

    evaluation: EvaluationConfig
    split: Literal["heldout", "sealed"]
    shots: Annotated[NonNegativeInt, LeftOutWhile(0)] = Field(
        default=0, description="Solved training pairs before each question; then only answers are measured, no text."
    )


class ComposeStage(Config):
    """Inputs: `model`, `corpus`. Output: report, with the texts that the model composed from training documents."""

    reads: Literal["left", "own", "previous"] = Field(
        description="How the model was trained: from the 'left', or with masks that are predicted at their 'own' or the "
        "'previous' place."
    )
    mask_token: str = Field(default="", description="Entry that stands for a mask; '' = the tokenizer's own.")
    way: Way
    composing: ComposingConfig

    @model_validator(mode="after")
    def _can_refill(self) -> ComposeStage:
        if self.reads == "left" and isinstance(self.way, Refill):
            raise ValueError("way.kind='refill' needs a model that reads both sides, but reads='left'. Use 'continue'.")
        return self


class EraseStage(Config):
    """Inputs: `model`, `corpus`; `labelled` (the texts of a labelled concept), `crows_pairs`, `gap` where the config names them.

    Output: eraser.
    """

    erasure: ErasureConfig


class VerifyStage(Config):
    """Inputs: `model`. Output: report. The folder is loaded by plain transformers in a fresh process."""

    max_logit_difference: float = Field(gt=0, description="Largest difference between its logits and ours.")

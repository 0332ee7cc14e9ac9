"""Which stages there are: code version, what they publish, their config and where their body is.

The version is bumped by hand when a body's output changes; a golden test of each stage's tiny output fails when it
changes without a bump. Bodies are named, not imported: this table is read by processes without torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from genai_core.config.base import Config
from genai_core.config.stages import (
    AugmentStage,
    ComposeStage,
    EraseStage,
    EvaluateStage,
    MeasureCorrectionStage,
    MeasureGenerationStage,
    PretrainStage,
    SampleCorrectionsStage,
    SynthesizeStage,
    TuneStage,
    VerifyStage,
)
from genai_core.storage.artifact import ArtifactKind


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of the table."""

    name: str
    version: int
    kind: ArtifactKind
    config: type[Config]
    body: str  # "module:function"

    def load_body(self) -> Callable[[Any, Any], Any]:
        """Import and return the body."""
        module, function = self.body.split(":")
        body: Callable[[Any, Any], Any] = getattr(importlib.import_module(f"genai_core.stages.{module}"), function)
        return body


STAGES = {
    stage.name: stage
    for stage in (
        Stage("augment", 3, ArtifactKind.DATASET, AugmentStage, "augment:augment"),
        Stage("pretrain", 3, ArtifactKind.MODEL, PretrainStage, "train:pretrain"),
        Stage("tune", 2, ArtifactKind.MODEL, TuneStage, "train:tune"),
        Stage("synthesize", 2, ArtifactKind.DATASET, SynthesizeStage, "synthesize:synthesize"),
        Stage("measure-generation", 2, ArtifactKind.REPORT, MeasureGenerationStage, "generation:measure_generation"),
        Stage("sample-corrections", 3, ArtifactKind.DATASET, SampleCorrectionsStage, "correct:sample_corrections"),
        Stage("measure-correction", 2, ArtifactKind.REPORT, MeasureCorrectionStage, "correct:measure_correction"),
        Stage("evaluate", 3, ArtifactKind.REPORT, EvaluateStage, "evaluate:evaluate"),
        Stage("erase", 1, ArtifactKind.ERASER, EraseStage, "erase:erase"),
        Stage("compose", 1, ArtifactKind.REPORT, ComposeStage, "compose:compose"),
        Stage("verify", 1, ArtifactKind.REPORT, VerifyStage, "verify:verify"),
    )
}

"""From an objective's config to the weighted objectives that the engine runs in one step."""

from __future__ import annotations

from typing import assert_never

from genai_core.config.training import CausalLm, JointContrastive
from genai_core.config.training import Objective as ObjectiveConfig
from genai_core.objectives.base import Weighted
from genai_core.objectives.causal_lm import CausalLmObjective
from genai_core.objectives.info_nce import InfoNceObjective


def build_objectives(config: ObjectiveConfig) -> tuple[Weighted, ...]:
    """Return the objectives of a training run with their weights."""
    match config:
        case CausalLm():
            return (Weighted(CausalLmObjective(), 1.0),)
        case JointContrastive():
            return (
                Weighted(CausalLmObjective(), 1.0),
                Weighted(InfoNceObjective(config.temperature), config.contrastive_weight),
            )
        case _:
            assert_never(config)

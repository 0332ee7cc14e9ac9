"""The learning rate of a step as a share of its peak: a pure function, so that a resume needs only the step.

    WSD      linear up | 1 | 1 - sqrt(progress of the decay)     Hägele et al. 2024, arXiv 2405.18392, section 3
    cosine   linear up | floor + (1 - floor) (1 + cos(pi progress)) / 2

Choices: the first step already has 1/warmup of the peak and the last of WSD is above 0, so that no step is wasted.
"""

from __future__ import annotations

import math
from typing import assert_never

from genai_core.config.training import Cosine, Schedule, Wsd


def rate_share(schedule: Schedule, step: int, steps: int) -> float:
    """Return the share of the peak learning rate, in (0, 1].

    Args:
        schedule: its shape.
        step: from 0.
        steps: of the whole run.
    """
    warmup = round(schedule.warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    match schedule:
        case Wsd():
            decay = round(schedule.decay_fraction * steps)
            into = step - (steps - decay) + 1
            return 1.0 if into <= 0 else 1 - math.sqrt(into / (decay + 1))
        case Cosine():
            progress = (step - warmup) / max(1, steps - 1 - warmup)
            return schedule.floor + (1 - schedule.floor) * (1 + math.cos(math.pi * progress)) / 2
        case _:
            assert_never(schedule)

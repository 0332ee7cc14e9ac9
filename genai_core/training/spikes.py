"""Which steps are not taken: a loss or gradient that is not finite, or a gradient far above the recent ones.

    bad  <=>  loss or norm not finite,  or  norm > factor * median(norms of the last `window` accepted steps)

The median needs LEAST_ACCEPTED steps before it judges: the first gradients of a run fall by themselves. What follows
from a bad step (skip, roll back, stop) is the engine's.
"""

from __future__ import annotations

import math
from statistics import median

from genai_core.config.training import SpikeConfig

LEAST_ACCEPTED = 16


class SpikeDetector:
    """Remembers the gradient norms of accepted steps."""

    def __init__(self, config: SpikeConfig, norms: list[float] | None = None) -> None:
        self._config = config
        self._norms = list(norms or ())

    def judge(self, loss: float, grad_norm: float) -> str:
        """Return why a step is bad, '' if it is good."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"the gradient's norm is {grad_norm}"
        if len(self._norms) >= min(LEAST_ACCEPTED, self._config.window):
            usual = median(self._norms)
            if grad_norm > self._config.factor * usual:
                return f"the gradient's norm {grad_norm:.3g} is above {self._config.factor:g} x the median {usual:.3g}"
        return ""

    def accept(self, grad_norm: float) -> None:
        """Remember the norm of a step that was taken; one without anything to learn from says nothing of what is usual."""
        if grad_norm:
            self._norms.append(grad_norm)
        del self._norms[: -self._config.window]

    def state(self) -> list[float]:
        """Return what a checkpoint keeps."""
        return list(self._norms)

    def restore(self, norms: list[float]) -> None:
        """Go back to a checkpoint's state."""
        self._norms = list(norms)

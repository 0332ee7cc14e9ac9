"""Which steps are not taken: a loss or gradient that is not finite, or a gradient far above the recent ones.

    bad  <=>  loss or norm not finite,  or  norm > HARMLESS and norm > factor * top tenth(norms of the last `window` accepted steps of its kind)

The least of the top tenth, not the median: where a model begins to learn what it could not do before, its gradients grow tenfold
within a hundred steps, at first in some of them, and clipped they do no harm. By the median those were the bad steps, what was
to be learned never was, and the median, being that of accepted steps, could not follow. The very largest may be one that was
accepted before enough were known.

Steps that learn from the same terms are of one kind: where a dataset is so rare that a step, or a worker's part of it, may have
no row of it, the gradient with its term can always be many times that without, and would be taken for a spike each time.
A model that has learned all of its rows has gradients near nothing, whose ratios say nothing: those are never spikes.
LEAST_ACCEPTED steps are needed before one is judged: the first gradients of a run fall by themselves. What follows
from a bad step (skip, roll back, stop) is the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from genai_core.config.training import SpikeConfig

LEAST_ACCEPTED = 16

HARMLESS = 1e-3
"""Norm that no spike is below. Losses are means, in nats: gradients of models that still learn are a hundred times this."""


class SpikeDetector:
    """Remembers the gradient norms of accepted steps, by what was learned from in them."""

    def __init__(self, config: SpikeConfig) -> None:
        self._config = config
        self._norms: dict[str, list[float]] = {}

    def judge(self, loss: float, grad_norm: float, counts: Mapping[str, float] | None = None) -> str:
        """Return why a step is bad, '' if it is good.

        Args:
            loss: of the step.
            grad_norm: before clipping.
            counts: units of each term; None where there is one kind of steps alone.
        """
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"the gradient's norm is {grad_norm}"
        norms = self._norms.get(_kind_of(counts), ())
        if len(norms) >= min(LEAST_ACCEPTED, self._config.window):
            large = sorted(norms)[int(0.9 * (len(norms) - 1))]
            if grad_norm > max(HARMLESS, self._config.factor * large):
                return (
                    f"the gradient's norm {grad_norm:.3g} is above {self._config.factor:g} x {large:.3g}, which nine of ten "
                    f"of the last {len(norms)} steps were below"
                )
        return ""

    def accept(self, grad_norm: float, counts: Mapping[str, float] | None = None) -> None:
        """Remember the norm of a step that was taken; one without anything to learn from says nothing of what is usual."""
        if grad_norm:
            norms = self._norms.setdefault(_kind_of(counts), [])
            norms.append(grad_norm)
            del norms[: -self._config.window]

    def state(self) -> dict[str, list[float]]:
        """Return what a checkpoint keeps."""
        return {kind: list(norms) for kind, norms in self._norms.items()}

    def restore(self, norms: Mapping[str, list[float]] | list[float]) -> None:
        """Go back to a checkpoint's state; one that knows no kinds is begun anew."""
        self._norms = {kind: list(own) for kind, own in norms.items()} if isinstance(norms, Mapping) else {}


def _kind_of(counts: Mapping[str, float] | None) -> str:
    return " ".join(sorted(name for name, count in (counts or {}).items() if count))

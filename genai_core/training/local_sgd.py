"""Local SGD and DiLoCo: workers learn alone for H steps, then share what they have learned.

    one round, M workers, shared weights theta
        theta_i <- theta
        H steps of the inner optimizer on worker i's own rows, its moments kept from round to round, never shared
        d   = sum_i u_i (theta - theta_i) / sum_i u_i        u_i: units (tokens) that worker i has learned from
        v   <- mu v + d
        theta <- theta - eta (d + mu v)                      Nesterov; eta = 1, mu = 0: the workers' mean

Douillard et al. 2023, arXiv 2311.08105, algorithm 1; Stich 2018, arXiv 1805.09767 for eta = 1, mu = 0. The paper takes the
plain mean; weights by units are the same where all workers see equally many tokens, and make H = 1 with inner SGD
synchronous SGD also where they do not. The first outer step has the gain eta (1 + mu), so even one worker is not its inner
optimizer unless eta = 1 and mu = 0.

The number of workers is part of the result; the number of processes is not. A rank runs its share of the workers in turn, and
what workers send is added up in the order of the workers, so one process and M give the same bits. Within a round
nothing is sent at all: figures, skips and the wish to stop wait for its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genai_core.config.training import LocalSgd, TrainingConfig
from genai_core.errors import ConfigError
from genai_core.objectives.base import Batch
from genai_core.training.optimizers import Optimizers, make_optimizers
from genai_core.training.parallel import Group
from genai_core.training.rows import Rows, rows_of_step
from genai_core.training.schedules import rate_share
from genai_core.training.spikes import SpikeDetector
from genai_core.training.state import trained_parameters
from genai_core.training.step import StepFigures, noise_seed

Descend = Callable[[Optimizers, Sequence[Batch], Sequence[int], float], StepFigures]
"""(optimizers, micro-batches, seeds, progress) -> figures; leaves the gradient of these rows alone in `.grad`."""

PART = "worker-"
OUTER = "outer"


@dataclass(slots=True)
class LocalWorker:
    """One worker: its weights, its moments, and what it takes for a bad step."""

    index: int
    weights: list[Tensor]
    optimizers: Optimizers
    detector: SpikeDetector
    skipped_in_a_row: int = 0
    units: float = 0.0

    @property
    def part(self) -> str:
        """Return the name of its moments in a checkpoint."""
        return f"{PART}{self.index:05d}"


@dataclass(frozen=True, slots=True)
class RoundStep:
    """One step of all workers together."""

    figures: StepFigures
    """Over the workers that took the step; metrics are their plain mean."""

    grad_norm: float
    """Mean over the workers that took the step."""

    skipped: int
    """Workers that did not take it."""


@dataclass(frozen=True, slots=True)
class RoundFigures:
    """What a round came to, equal on all ranks."""

    steps: Sequence[RoundStep]
    skipped_in_a_row: int
    """Of the worker that has skipped longest."""

    reasons: Sequence[str]
    """Why the first bad steps were bad."""

    outer: Mapping[str, float]
    """The exchange: `pseudo_gradient_norm`; `agreement`, |d|^2 over the mean of |d_i|^2 (1: all alike, 1 / M: at right
    angles); `bytes_sent` by rank 0."""


class LocalWorkers:
    """The workers of this rank, and what all ranks share."""

    def __init__(self, model: nn.Module, config: TrainingConfig, settings: LocalSgd, group: Group) -> None:
        """Prepare this rank's workers.

        Raises:
            ConfigError: the workers cannot be shared evenly over the ranks.
        """
        if settings.workers % group.world_size:
            raise ConfigError(
                f"compute.workers={group.world_size} processes cannot share training.exchange.workers={settings.workers} "
                f"evenly. Set compute.workers to a divisor of {settings.workers}; any of them gives the same result."
            )
        self._config, self._settings, self._group = config, settings, group
        self._parameters = trained_parameters(model)
        self._shared = [parameter.detach().clone() for parameter in self._parameters.values()]
        self._momentum = [torch.zeros_like(tensor) for tensor in self._shared]
        self.own = [
            LocalWorker(
                index,
                [tensor.clone() for tensor in self._shared],
                make_optimizers(model, config.optimizer),
                SpikeDetector(config.spikes),
            )
            for index in group.share(range(settings.workers))
        ]

    def begin(self) -> None:
        """Take the model's weights for the shared ones."""
        for shared, parameter in zip(self._shared, self._parameters.values(), strict=True):
            shared.copy_(parameter.detach())
        self._hand_out()

    def make_round(self, first: int, rows: Rows, micro_batch_rows: int, descend: Descend) -> RoundFigures:
        """Make `inner_steps` steps with every worker, then the outer one; the model is left with the shared weights.

        Args:
            first: number of the round's first step.
            rows: packed rows.
            micro_batch_rows: rows in one pass.
            descend: makes a gradient.
        """
        found: list[list[_Found]] = [[] for _ in self.own]
        for step in range(first, first + self._settings.inner_steps):
            for worker, told in zip(self.own, found, strict=True):
                told.append(self._step(worker, step, rows, micro_batch_rows, descend))
        sent = self._group.sent_bytes
        norm, agreement = self._share_progress()
        outer = {
            "pseudo_gradient_norm": norm,
            "agreement": agreement,
            "bytes_sent": float(self._group.sent_bytes - sent),
        }
        in_a_row = torch.tensor([max(worker.skipped_in_a_row for worker in self.own)], device=self._group.device)
        self._group.max_(in_a_row)
        mine = [
            f"worker {worker.index}: {one.reason}"
            for worker, told in zip(self.own, found, strict=True)
            for one in told
            if one.reason
        ]
        reasons = [reason for theirs in self._group.gather_json(mine[:4]) for reason in theirs]
        return RoundFigures(self._add_up(found), int(in_a_row), reasons, outer)

    def forget_skips(self) -> None:
        """Begin to count anew after a roll-back."""
        for worker in self.own:
            worker.skipped_in_a_row = 0

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return what this rank puts into a checkpoint: its workers' moments; rank 0 also the outer momentum."""
        parts = {
            worker.part: {
                f"{name}/{key}": value
                for name, parameter in self._parameters.items()
                for key, value in worker.optimizers.state_of(parameter).items()
            }
            for worker in self.own
        }
        return (
            {OUTER: dict(zip(self._parameters, self._momentum, strict=True)), **parts} if self._group.leads else parts
        )

    def state(self) -> list[dict[str, list[float]]]:
        """Return the gradient norms that every worker remembers, of all ranks."""
        told = self._group.gather_json([worker.detector.state() for worker in self.own])
        return [norms for ranks in told for norms in ranks]

    def forget(self) -> None:
        """Forget all moments."""
        for worker in self.own:
            worker.optimizers.forget()
        for tensor in self._momentum:
            tensor.zero_()

    def restore_state(self, norms: Sequence[dict[str, list[float]]]) -> None:
        """Give every worker its gradient norms back."""
        for worker in self.own:
            worker.detector.restore(norms[worker.index])

    def restore_tensor(self, part: str, full: str, tensor: Tensor) -> None:
        """Put a tensor of a checkpoint back where `tensors` found it, on the rank that has the worker."""
        if part == OUTER:
            self._momentum[list(self._parameters).index(full)].copy_(tensor)
            return
        name, _, key = full.rpartition("/")
        for worker in self.own:
            if worker.part == part:
                worker.optimizers.state_of(self._parameters[name])[key] = tensor.clone()

    def _step(self, worker: LocalWorker, step: int, rows: Rows, micro_batch_rows: int, descend: Descend) -> _Found:
        config, parameters = self._config, self._parameters.values()
        for parameter, tensor in zip(parameters, worker.weights, strict=True):
            parameter.data = tensor  # a pointer, not a copy
        share = Group(worker.index, self._settings.workers, self._group.device).share
        batches = rows_of_step(rows, config, step).micro_batches(share, micro_batch_rows, self._group.device)
        seeds = [noise_seed(config.seed, step, micro_step, worker.index) for micro_step in range(len(batches))]
        figures = descend(worker.optimizers, batches, seeds, step / config.steps)
        norm = torch.nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None])
        grad_norm = float(norm)
        reason = worker.detector.judge(figures.loss, grad_norm, figures.counts)
        if reason:
            worker.skipped_in_a_row += 1
            return _Found(figures, grad_norm, f"step {step}: {reason}")
        torch.nn.utils.clip_grads_with_norm_(parameters, config.max_grad_norm, norm)
        worker.optimizers.step(rate_share(config.schedule, step, config.steps))
        worker.detector.accept(grad_norm, figures.counts)
        worker.skipped_in_a_row = 0
        worker.units += sum(figures.counts.values())
        return _Found(figures, grad_norm, "")

    @torch.no_grad()
    def _share_progress(self) -> tuple[float, float]:
        """Make the outer step; return |d| and the agreement of the workers."""
        settings, group = self._settings, self._group
        units = torch.tensor([[worker.units] for worker in self.own], dtype=torch.float64, device=group.device)
        total = max(1.0, float(group.sum_ordered(units)))
        lengths = torch.zeros(len(self.own), 2, dtype=torch.float64, device=group.device)  # u_i |d_i|^2, u_i
        square = 0.0
        for at, (shared, momentum) in enumerate(zip(self._shared, self._momentum, strict=True)):
            moves = torch.stack([(shared - worker.weights[at]).flatten() for worker in self.own])  # (m, n)
            weights = (units / total).to(moves.dtype)
            lengths[:, 0] += moves.double().square().sum(1) * units[:, 0] / total
            mean = group.sum_ordered(moves * weights)
            square += float(mean.double().square().sum())
            mean = mean.view_as(shared)
            momentum.mul_(settings.outer_momentum).add_(mean)
            shared.sub_(mean.add(momentum, alpha=settings.outer_momentum), alpha=settings.outer_learning_rate)
        alone = float(group.sum_ordered(lengths)[0])
        for worker in self.own:
            worker.units = 0.0
        self._hand_out()
        return math.sqrt(square), square / alone if alone else 1.0

    @torch.no_grad()
    def _hand_out(self) -> None:
        for worker in self.own:
            for tensor, shared in zip(worker.weights, self._shared, strict=True):
                tensor.copy_(shared)
        for parameter, tensor in zip(self._parameters.values(), self.own[0].weights, strict=True):
            parameter.data = tensor

    def _add_up(self, found: Sequence[Sequence[_Found]]) -> list[RoundStep]:
        """Return the figures of each step over the workers of all ranks that took it."""
        rows = [[value for one in told for value in one.numbers()] for told in found]
        sums = self._group.sum_ordered(torch.tensor(rows, dtype=torch.float64, device=self._group.device)).tolist()
        steps = []
        for one in found[0]:
            own, sums = sums[: len(one.numbers())], sums[len(one.numbers()) :]
            steps.append(one.over_all(own, self._settings.workers))
        return steps


@dataclass(frozen=True, slots=True)
class _Found:
    """One step of one worker."""

    figures: StepFigures
    grad_norm: float
    reason: str

    def numbers(self) -> list[float]:
        """Return what is added up over workers: zeros for a step that was not taken."""
        figures = self.figures
        pairs = [(figures.terms[name] * figures.counts[name], figures.counts[name]) for name in figures.terms]
        flat = [1.0, self.grad_norm, *(value for pair in pairs for value in pair), *figures.metrics.values()]
        return [0.0] * len(flat) if self.reason else flat

    def over_all(self, sums: Sequence[float], workers: int) -> RoundStep:
        """Return the step of all workers from the sums of their numbers."""
        taken, norm, *rest = sums
        names = list(self.figures.terms)
        pairs = {name: rest[2 * at : 2 * at + 2] for at, name in enumerate(names)}
        terms = {name: total / max(1.0, count) for name, (total, count) in pairs.items()}
        metrics = dict(zip(self.figures.metrics, rest[2 * len(names) :], strict=True))
        weights = self.figures.weights
        loss = sum(weights[name] * mean for name, mean in terms.items()) if taken else math.nan
        figures = StepFigures(
            loss,
            terms,
            weights,
            {name: count for name, (_, count) in pairs.items()},
            {name: value / max(1.0, taken) for name, value in metrics.items()},
        )
        return RoundStep(figures, norm / max(1.0, taken), workers - round(taken))


def describe_skips(figures: RoundFigures) -> dict[str, Any]:
    """Return what an event tells of a round's bad steps."""
    return {"skipped": sum(one.skipped for one in figures.steps), "reasons": list(figures.reasons[:4])}

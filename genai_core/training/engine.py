"""The loop: rows -> gradient -> one update, with everything that makes the loop exact, resumable and hard to break.

Exact: the rows of a step, its learning rate and its noise are functions of (seed, step), its gradient is the same for
every cut into micro-batches and ranks (training/step.py). So a run that was killed and resumed from a checkpoint makes
the steps that an unbroken one makes, bit for bit.

Bad steps: one whose loss or gradient is not finite, or far above the recent ones, is skipped and counted. More than
`skip_budget` in a row: the weights go back to the last good checkpoint, while the step counter and the position in the
data do not, so that the bad rows are behind and no metric is recorded twice. More than `rollback_budget` roll-backs:
the run stops and says which rows, which term, which layers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from genai_core.config.training import TrainingConfig
from genai_core.data.order import rows_for_step
from genai_core.errors import ConfigError, InterruptedRunError, TrainingDivergedError
from genai_core.objectives.base import Batch, Weighted
from genai_core.training.checkpoint import Checkpoint, CheckpointFolder
from genai_core.training.diagnosis import describe_divergence, largest_gradients, worst_rows
from genai_core.training.evaluate import HeldOut, HeldOutLoss, measure_heldout
from genai_core.training.optimizers import make_optimizers
from genai_core.training.parallel import Group
from genai_core.training.rows import Rows, StepRows, rows_of_step
from genai_core.training.schedules import rate_share
from genai_core.training.spikes import SpikeDetector
from genai_core.training.state import Counters, blank_tensors, read_tensors, write_tensors
from genai_core.training.step import NONE_FROZEN, Frozen, Precision, StepFigures, accumulate_gradients, noise_seed

CURVE_ROWS = 64
"""Held-out rows behind each point of the curve; the last figure of a run is over all of them."""


class Log(Protocol):
    """What of a Journal the engine needs."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics of a step."""
        ...

    def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
        """Record how far the run is."""
        ...

    def event(self, message: str, **data: Any) -> None:
        """Record something worth telling."""
        ...


class Silence:
    """The log of a rank that does not write."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record nothing."""

    def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
        """Record nothing."""

    def event(self, message: str, **data: Any) -> None:
        """Record nothing."""


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What a finished run is worth, equal however often it was interrupted; and what this attempt of it took."""

    counters: Counters
    train_loss: float
    """Mean of the last steps that were taken, in nats."""

    held_out: HeldOutLoss | None
    attempt_tokens: int
    attempt_seconds: float
    """Of the steps of this attempt: without loading, checkpoints and evaluation."""


class Engine:
    """One training run."""

    def __init__(
        self,
        model: nn.Module,
        objectives: Sequence[Weighted],
        rows: Rows,
        config: TrainingConfig,
        *,
        group: Group,
        checkpoints: CheckpointFolder,
        log: Log,
        precision: Precision = "float32",
        micro_batch_rows: int = 8,
        held_out: HeldOut | None = None,
        frozen: Frozen = NONE_FROZEN,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare a run.

        Args:
            model: on the group's device, with its trained weights marked; changed in place.
            objectives: what is learned, with weights.
            rows: packed rows of `config.seq_len` tokens.
            config: what defines the result.
            group: the ranks.
            checkpoints: where the run's state is kept; used by rank 0.
            log: where figures go; used by rank 0.
            precision: of the matrix products; weights keep their type.
            micro_batch_rows: rows in one pass.
            held_out: what the run is measured on.
            frozen: the other models that objectives ask, on the group's device; no part of the run's state.
            should_stop: asked before every step.

        Raises:
            ConfigError: more ranks than rows in a step.
        """
        rows_per_step = config.rows_per_step()
        if group.world_size > rows_per_step:
            raise ConfigError(
                f"compute.workers={group.world_size} is more than the {rows_per_step} rows of a step "
                f"(global_batch_tokens={config.global_batch_tokens:,} / seq_len={config.seq_len:,}). "
                f"Set compute.workers to at most {rows_per_step}, or raise global_batch_tokens."
            )
        self._model = model
        self._objectives = tuple(objectives)
        self._rows = rows
        self._config = config
        self._group = group
        self._checkpoints = checkpoints
        self._log: Log = log if group.leads else Silence()
        self._precision = precision
        self._micro_batch_rows = micro_batch_rows
        self._held_out = held_out
        self._frozen = frozen
        self._should_stop = should_stop
        self._optimizers = make_optimizers(model, config.optimizer)
        self._detector = SpikeDetector(config.spikes)
        self._counters = Counters()
        self._attempt_tokens = 0
        self._attempt_seconds = 0.0

    def run(self) -> RunFigures:
        """Train to the end, from the newest good checkpoint if there is one.

        Raises:
            InterruptedRunError: `should_stop` said so; the state is kept.
            TrainingDivergedError: bad steps beyond the budgets.
            DiskFullError: no space for a checkpoint.
        """
        self._model.train()
        self._start()
        while self._counters.step < self._config.steps:
            if self._group.any(self._should_stop()):
                self._stop()
            self._make_step()
            step = self._counters.step
            last = step == self._config.steps
            if self._held_out is not None and (last or step % self._config.evaluate_every_steps == 0):
                self._measure(step)
            if last or step % self._config.checkpoint_every_steps == 0:
                self._save()
        recent = self._counters.recent_losses
        return RunFigures(
            counters=self._counters,
            train_loss=sum(recent) / len(recent) if recent else math.nan,
            held_out=self._measure_rows(range(len(self._held_out.rows))) if self._held_out is not None else None,
            attempt_tokens=self._attempt_tokens,
            attempt_seconds=self._attempt_seconds,
        )

    def _start(self) -> None:
        """Take up the newest good checkpoint, or make the first: a roll-back always has somewhere to go."""
        found = self._checkpoints.newest() if self._group.leads else None
        state = self._restore(found)
        if state is None:
            self._group.broadcast_([parameter.data for parameter in self._model.parameters()])
            self._save()
            return
        self._counters = Counters(**state["counters"])
        self._log.event(f"resumed at step {self._counters.step}", step=self._counters.step)

    def _make_step(self) -> None:
        started = time.monotonic()
        config, step = self._config, self._counters.step
        visits = rows_of_step(self._rows, config, step)
        size, own = self._micro_batch_rows, self._group.share(range(len(visits.indices)))
        parts = [slice(at, min(at + size, own.stop)) for at in range(own.start, own.stop, size)]
        batches = [visits.take(part, self._group.device) for part in parts]
        seeds = [noise_seed(config.seed, step, micro_step, self._group.rank) for micro_step in range(len(batches))]
        if len(self._objectives) > 1 and (step + 1) % config.evaluate_every_steps == 0:
            self._compare_terms(batches, seeds)
        figures = self._descend(self._objectives, batches, seeds)
        norm = self._gradient_norm()
        grad_norm = float(norm)
        share = rate_share(config.schedule, step, config.steps)
        reason = self._detector.judge(figures.loss, grad_norm)
        if reason:
            self._skip(reason, figures, visits, grad_norm)
        else:
            torch.nn.utils.clip_grads_with_norm_(self._model.parameters(), config.max_grad_norm, norm)
            self._optimizers.step(share)
            self._detector.accept(grad_norm)
            self._counters.skipped_in_a_row = 0
            self._counters.note_loss(figures.loss)
        tokens = config.rows_per_step() * config.seq_len
        self._counters.step += 1
        self._counters.tokens_seen += tokens
        seconds = time.monotonic() - started
        self._attempt_tokens += tokens
        self._attempt_seconds += seconds
        self._tell(figures, grad_norm, config.optimizer.learning_rate * share, tokens / seconds)

    def _descend(self, objectives: Sequence[Weighted], batches: Sequence[Batch], seeds: Sequence[int]) -> StepFigures:
        self._optimizers.zero_grad()
        return accumulate_gradients(
            self._model,
            objectives,
            batches,
            group=self._group,
            precision=self._precision,
            seeds=seeds,
            progress=self._progress,
            frozen=self._frozen,
        )

    @property
    def _progress(self) -> float:
        return self._counters.step / self._config.steps

    def _gradient_norm(self) -> torch.Tensor:
        gradients = [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def _compare_terms(self, batches: Sequence[Batch], seeds: Sequence[int]) -> None:
        """Tell how large each objective's own gradient is, from a pass of its own; the noise is the step's."""
        norms: dict[str, float] = {}
        for one in (one for one in self._objectives if one.is_active(self._progress)):
            figures = self._descend([one], batches, seeds)
            norm = float(self._gradient_norm())
            norms.update({f"grad_norm/{name}": norm for name in figures.terms})
        self._log.metrics(self._counters.step + 1, norms)

    def _tell(self, figures: StepFigures, grad_norm: float, rate: float, tokens_per_second: float) -> None:
        step, steps = self._counters.step, self._config.steps
        self._log.metrics(
            step,
            {
                "train/loss": figures.loss,
                "train/grad_norm": grad_norm,
                "train/learning_rate": rate,
                "train/tokens_seen": float(self._counters.tokens_seen),
                **{f"loss/{name}": value for name, value in figures.terms.items()},
                **{f"weight/{name}": value for name, value in figures.weights.items()},
                **{f"count/{name}": value for name, value in figures.counts.items()},
                **{f"train/{name}": value for name, value in figures.metrics.items()},
                **({"train/skipped_steps": float(self._counters.skipped)} if self._counters.skipped else {}),
            },
        )
        average = self._attempt_tokens / self._attempt_seconds
        per_step = self._config.rows_per_step() * self._config.seq_len
        shown = {"loss": figures.loss} if math.isfinite(figures.loss) else {}
        self._log.progress(
            step,
            steps,
            "step",
            tokens_per_second=round(tokens_per_second, 1),
            eta_seconds=round((steps - step) * per_step / average, 1),
            **shown,
        )

    def _skip(self, reason: str, figures: StepFigures, visits: StepRows, grad_norm: float) -> None:
        """Leave the weights as they are; past the budget go back, past that budget too give up."""
        counters, budget = self._counters, self._config.spikes
        counters.skipped += 1
        counters.skipped_in_a_row += 1
        self._log.event(
            f"step {counters.step} skipped: {reason}",
            step=counters.step,
            rows=[int(index) for index in visits.indices[:32]],
            loss=_sayable(figures.loss),
            grad_norm=_sayable(grad_norm),
        )
        if counters.skipped_in_a_row <= budget.skip_budget:
            return
        if counters.rollbacks >= budget.rollback_budget:
            gradients = largest_gradients(self._model)
            rows = worst_rows(
                self._model,
                self._objectives,
                visits,
                progress=self._progress,
                precision=self._precision,
                group=self._group,
                frozen=self._frozen,
            )
            raise TrainingDivergedError(describe_divergence(reason, counters.step, figures.terms, rows, gradients))
        counters.rollbacks += 1
        counters.skipped_in_a_row = 0
        found = self._checkpoints.newest(for_rollback=True) if self._group.leads else None
        state = self._restore(found)
        if state is None:
            raise TrainingDivergedError(
                f"Step {counters.step}: {reason}, and no good checkpoint is left to go back to."
            )
        self._log.event(
            f"rolled back to the weights of step {state['counters']['step']} after {budget.skip_budget + 1} skipped steps",
            step=counters.step,
            checkpoint=state["counters"]["step"],
        )

    def _restore(self, checkpoint: Checkpoint | None) -> dict[str, Any] | None:
        """Put rank 0's checkpoint into every rank's weights, moments and detector; return its state, None if none."""
        moments = checkpoint is not None and bool(checkpoint.tensors["optimizer"])
        told = None if checkpoint is None else {"state": dict(checkpoint.state), "moments": moments}
        told = self._group.broadcast_json(told)
        if told is None:
            return None
        if checkpoint is not None:
            tensors = {
                part: {
                    name: tensor.to(self._group.device) if part != "rng" else tensor for name, tensor in content.items()
                }
                for part, content in checkpoint.tensors.items()
            }
        else:
            tensors = blank_tensors(self._model, self._optimizers, moments=told["moments"])
        for part in ("model", "optimizer"):
            self._group.broadcast_([tensors[part][name] for name in sorted(tensors[part])])
        write_tensors(self._model, self._optimizers, tensors)
        self._detector.restore(told["state"]["grad_norms"])
        state: dict[str, Any] = told["state"]
        return state

    def _save(self) -> None:
        """Write a checkpoint, but never in the middle of skipped steps: what it holds may be the reason for them."""
        if self._group.leads and not self._counters.skipped_in_a_row:
            state = {"counters": self._counters.to_json(), "grad_norms": self._detector.state()}
            self._checkpoints.save(self._counters.step, read_tensors(self._model, self._optimizers), state)

    def _stop(self) -> None:
        self._save()
        raise InterruptedRunError(
            f"Training was stopped at step {self._counters.step} of {self._config.steps}. Run again to resume."
        )

    def _measure(self, step: int) -> None:
        assert self._held_out is not None
        total = len(self._held_out.rows)
        found = self._measure_rows(rows_for_step(0, 0, min(CURVE_ROWS, total), total))
        figures = {"eval/loss_nats": found.loss_nats}
        if found.bits_per_byte is not None:
            figures["eval/bits_per_byte"] = found.bits_per_byte
        self._log.metrics(step, figures)

    def _measure_rows(self, indices: Sequence[int] | np.ndarray) -> HeldOutLoss:
        assert self._held_out is not None
        return measure_heldout(
            self._model,
            self._objectives,
            self._held_out,
            indices,
            batch_rows=self._micro_batch_rows,
            precision=self._precision,
            group=self._group,
        )


def _sayable(value: float) -> float | str:
    """Return a number that JSON can carry."""
    return value if math.isfinite(value) else str(value)

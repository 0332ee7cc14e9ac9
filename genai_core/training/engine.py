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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from genai_core.config.training import LocalSgd, TrainingConfig
from genai_core.data.order import rows_for_step
from genai_core.errors import ConfigError, InterruptedRunError, TrainingDivergedError
from genai_core.objectives.base import Batch, Weighted
from genai_core.training.checkpoint import Checkpoint, CheckpointFolder
from genai_core.training.context import check_context
from genai_core.training.diagnosis import describe_divergence, largest_gradients, worst_rows
from genai_core.training.evaluate import HeldOut, HeldOutLoss, measure_heldout
from genai_core.training.local_sgd import LocalWorkers, RoundFigures, describe_skips
from genai_core.training.log import Log, Silence
from genai_core.training.optimizers import Optimizers, make_optimizers
from genai_core.training.parallel import Group
from genai_core.training.pipeline import stage_of
from genai_core.training.rows import Rows, StepRows, rows_of_step
from genai_core.training.schedules import rate_share
from genai_core.training.sharding import check_sharding, name_cuts, own_cut, settle
from genai_core.training.spikes import SpikeDetector
from genai_core.training.state import Counters, read_back, read_tensors
from genai_core.training.step import NONE_FROZEN, Frozen, Precision, StepFigures, accumulate_gradients, noise_seed
from genai_core.training.tensor import clip_gradients, gradient_norm, take_whole

CURVE_ROWS = 64
"""Held-out rows behind each point of the curve; the last figure of a run is over all of them."""


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
            ConfigError: more ranks than rows in a step, or cut weights with what cannot be computed on them.
        """
        if group.shards:
            check_sharding(config)
        elif group.cuts:
            check_sharding(config, "compute.tensor_parallel", "compute.tensor_parallel=1")
        if group.shares_tokens and group.team is not None:
            check_context(config, group.team.world_size)
        rows_per_step = config.rows_per_step()
        team = group.world_size // group.rows.world_size
        most = rows_per_step * team
        if group.world_size > most:
            raise ConfigError(
                f"compute.workers={group.world_size} is more than the {rows_per_step} rows of a step"
                f"{f' times {team} that share a row' if team > 1 else ''} "
                f"(global_batch_tokens={config.global_batch_tokens:,} / seq_len={config.seq_len:,}). "
                f"Set compute.workers to at most {most}, or raise global_batch_tokens."
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
        exchange = config.exchange
        self._local = LocalWorkers(model, config, exchange, group) if isinstance(exchange, LocalSgd) else None
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
            if self._local is None:
                self._make_step()
            else:
                self._make_round(self._local)
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
            if self._group.holds_whole:
                self._group.broadcast_([parameter.data for parameter in self._model.parameters()])
            if self._local is not None:
                self._local.begin()
            self._save()
            return
        self._counters = Counters(**state["counters"])
        self._log.event(f"resumed at step {self._counters.step}", step=self._counters.step)

    def _make_step(self) -> None:
        started = time.monotonic()
        config, step = self._config, self._counters.step
        visits = rows_of_step(self._rows, config, step)
        batches = visits.micro_batches(self._group.rows.share, self._micro_batch_rows, self._group.device)
        seeds = [noise_seed(config.seed, step, micro_step, self._group.sums.rank) for micro_step in range(len(batches))]
        if len(self._objectives) > 1 and (step + 1) % config.evaluate_every_steps == 0:
            self._compare_terms(batches, seeds)
        figures = self._descend(self._objectives, batches, seeds)
        norm = self._gradient_norm()
        grad_norm = float(norm)
        share = rate_share(config.schedule, step, config.steps)
        reason = self._detector.judge(figures.loss, grad_norm, figures.counts)
        if reason:
            self._skip(reason, figures, visits, grad_norm)
        else:
            clip_gradients(self._model.parameters(), config.max_grad_norm, norm)
            self._optimizers.step(share)
            self._detector.accept(grad_norm, figures.counts)
            self._counters.skipped_in_a_row = 0
            self._counters.note_loss(figures.loss)
        tokens = config.rows_per_step() * config.seq_len
        self._counters.step += 1
        self._counters.tokens_seen += tokens
        seconds = time.monotonic() - started
        self._attempt_tokens += tokens
        self._attempt_seconds += seconds
        self._tell(figures, grad_norm, config.optimizer.learning_rate * share, tokens / seconds)

    def _make_round(self, local: LocalWorkers) -> None:
        """Make the steps between two exchanges; all is told, and judged, at their end."""
        started = time.monotonic()
        config, counters, first = self._config, self._counters, self._counters.step

        def descend(
            optimizers: Optimizers, batches: Sequence[Batch], seeds: Sequence[int], progress: float
        ) -> StepFigures:
            optimizers.zero_grad()
            return accumulate_gradients(
                self._model,
                self._objectives,
                batches,
                group=Group(0, 1, self._group.device),
                precision=self._precision,
                seeds=seeds,
                progress=progress,
                frozen=self._frozen,
            )

        found = local.make_round(first, self._rows, self._micro_batch_rows, descend)
        tokens = config.rows_per_step() * config.seq_len
        seconds = time.monotonic() - started
        self._attempt_seconds += seconds
        self._attempt_tokens += tokens * len(found.steps)
        for one in found.steps:
            if math.isfinite(one.figures.loss):  # else no worker took the step
                counters.note_loss(one.figures.loss)
            counters.skipped += one.skipped
            share = rate_share(config.schedule, counters.step, config.steps)
            counters.step += 1
            counters.tokens_seen += tokens
            self._tell(
                one.figures, one.grad_norm, config.optimizer.learning_rate * share, tokens * len(found.steps) / seconds
            )
        self._log.metrics(counters.step, {f"local_sgd/{name}": value for name, value in found.outer.items()})
        counters.skipped_in_a_row = found.skipped_in_a_row
        if any(one.skipped for one in found.steps):
            self._judge_skips(local, first, found)

    def _judge_skips(self, local: LocalWorkers, first: int, found: RoundFigures) -> None:
        """Tell which workers skipped; past the budget go back, past that budget too give up."""
        counters, budget = self._counters, self._config.spikes
        told = describe_skips(found)
        self._log.event(f"{told['skipped']} worker steps skipped in the round of step {first}", step=first, **told)
        if found.skipped_in_a_row <= budget.skip_budget:
            return
        reason = f"a worker skipped {found.skipped_in_a_row} steps in a row ({'; '.join(found.reasons[:2])})"
        if counters.rollbacks >= budget.rollback_budget:
            raise TrainingDivergedError(
                f"Training diverged in the round of step {first}: {reason}, after every skip and roll-back that its budget "
                "allows. Lower optimizer.learning_rate, exchange.outer_learning_rate or exchange.inner_steps."
            )
        self._go_back(reason)
        local.forget_skips()

    def _descend(self, objectives: Sequence[Weighted], batches: Sequence[Batch], seeds: Sequence[int]) -> StepFigures:
        self._optimizers.zero_grad()
        return accumulate_gradients(
            self._model,
            objectives,
            batches,
            group=self._group.sums,
            precision=self._precision,
            seeds=seeds,
            progress=self._progress,
            frozen=self._frozen,
        )

    @property
    def _progress(self) -> float:
        return self._counters.step / self._config.steps

    def _gradient_norm(self) -> torch.Tensor:
        stage = stage_of(self._model)
        if stage is not None:
            return stage.gradient_norm()
        return gradient_norm(self._model.parameters(), self._group)

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
        self._go_back(reason)

    def _go_back(self, reason: str) -> None:
        """Return to the weights of the last checkpoint that a roll-back may return to."""
        counters, budget = self._counters, self._config.spikes
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
        local = self._local
        if local is not None:
            local.forget()
        state = read_back(
            checkpoint,
            self._model,
            self._optimizers,
            self._group,
            more=local.restore_tensor if local is not None else None,
        )
        if state is None:
            return None
        self._detector.restore(state["grad_norms"])
        if local is not None:
            local.begin()
            local.restore_state(state["workers"])
        return state

    def _save(self) -> None:
        """Write a checkpoint, but never in the middle of skipped steps: what it holds may be the reason for them."""
        if self._counters.skipped_in_a_row:
            return
        state: dict[str, Any] = {"counters": self._counters.to_json(), "grad_norms": self._detector.state()}
        take, stage = take_whole(self._group) if self._group.cuts else own_cut, stage_of(self._model)
        own = name_cuts(read_tensors(self._model, self._optimizers, take), self._group)
        if stage is not None:
            own = {**stage.gather(own)}
        if self._local is not None:
            own = {**(own if self._group.leads else {}), **self._local.tensors()}
            state["workers"] = self._local.state()
        elif not self._group.shards:
            if self._group.leads:
                self._checkpoints.save(self._counters.step, own, state)
            return
        others = self._group.hand_over(own)
        if self._group.leads:
            self._checkpoints.save(self._counters.step, own, state, others)
        else:
            list(others)

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
        found = measure_heldout(
            self._model,
            self._objectives,
            self._held_out,
            indices,
            batch_rows=self._micro_batch_rows,
            precision=self._precision,
            group=self._group,
        )
        settle(self._model)
        return found


def _sayable(value: float) -> float | str:
    """Return a number that JSON can carry."""
    return value if math.isfinite(value) else str(value)

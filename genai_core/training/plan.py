"""What is chosen by measurement, once, and kept beside the run's state: plan.json.

    {"precision": "bfloat16", "threads": 2, "micro_batch_rows": 8, "world_size": 1}

None of it is part of a stage's identity, but all of it is part of "bit for bit": the same plan gives the same bits. So
a resume uses the plan that is there. Where it cannot (fewer workers now) or must not (the person now gives a number),
the change is told and written down.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from genai_core.config.compute import ComputeConfig
from genai_core.data.mixing import visits_of_step
from genai_core.errors import ConfigError
from genai_core.models.recompute import recomputes_layers
from genai_core.objectives.base import Weighted
from genai_core.training.checkpoint import Events, Keeper
from genai_core.training.parallel import Group
from genai_core.training.processor import has_bfloat16
from genai_core.training.rows import Rows, take_batch
from genai_core.training.step import NONE_FROZEN, Frozen, Precision, accumulate_gradients

PLAN = "plan.json"
MEASURING_SECONDS = 5.0
CLOSE = 0.7  # of the best pass: a busy moment may be the reason
USUAL_ROWS = 8
WORTH_BFLOAT16 = 1.10  # fewer digits must buy something
WORTH_MORE_ROWS = 1.03  # more memory too
MEMORY_SHARE = 0.25
PASSES_PER_STAGE = 4
"""Micro-batches for every other stage of a pipeline: each stage waits a fifth of its time at most."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run is computed, not what."""

    precision: Precision
    threads: int
    micro_batch_rows: int
    world_size: int
    changes: tuple[str, ...] = ()
    """What attempts of one run had differently, oldest first: its last digits are then its own."""


def read_plan(folder: Path) -> Plan | None:
    """Return the plan of an earlier attempt, or None if there is none that can be read."""
    try:
        found = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        plan = Plan(**{**found, "changes": tuple(found.get("changes", ()))})
    except (OSError, ValueError, TypeError):
        return None
    return plan if plan.precision in get_args(Precision) and plan.micro_batch_rows > 0 else None


class KnownPlans:
    """Plans of this process's earlier trainings, by all that measuring depends on but the weights.

    The trainings of one flow follow each other on one machine with one architecture: measuring again would take two to
    three seconds of each and find the same.
    """

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}

    def learn(self, model: Path, asked: Mapping[str, Any], folder: Path) -> None:
        """Remember the plan that lies in a folder, found for such a model."""
        plan = read_plan(folder)
        if plan is not None:
            self._plans[_alike(model, asked)] = replace(plan, changes=())

    def lend(self, model: Path, asked: Mapping[str, Any], folder: Path) -> None:
        """Put the plan that is known for such a model into a folder that has none."""
        plan = self._plans.get(_alike(model, asked))
        if plan is not None and read_plan(folder) is None:
            write_plan(plan, folder)


def _alike(model: Path, asked: Mapping[str, Any]) -> str:
    architecture = (model / "config.json").read_text(encoding="utf-8")
    return json.dumps([json.loads(architecture), asked], sort_keys=True)


def write_plan(plan: Plan, folder: Path) -> None:
    """Write a plan, whole or not at all."""
    draft = folder / f".{PLAN}.part"
    draft.write_text(json.dumps(asdict(plan), sort_keys=True) + "\n", encoding="utf-8")
    draft.rename(folder / PLAN)


def place_workers(compute: ComputeConfig, rows_per_step: int, folder: Path, shared_by: int = 0) -> tuple[int, int]:
    """Return (world_size, threads) of a training group: what the config says, else the plan, else one worker per GPU.

    Args:
        compute: numbers given by the person; 0 is resolved here.
        rows_per_step: over all ranks.
        folder: where plan.json lies, if there is one.
        shared_by: workers of local SGD, which the processes share evenly; 0 = none.

    Raises:
        ConfigError: more workers (or teams of workers that share the same rows) than rows in a step.
    """
    earlier, team = read_plan(folder), compute.team_size()
    fitting = [size for size in range(team, torch.cuda.device_count() + 1, team) if shared_by % size == 0]
    known = earlier.world_size if earlier and not earlier.world_size % team else 0
    world_size = compute.workers or known or max([team, *fitting])
    if world_size > rows_per_step * team:
        raise ConfigError(
            f"compute.workers={world_size} is more than the {rows_per_step} rows of a step"
            f"{f' times {team} that share a row' if team > 1 else ''}. "
            f"Set it to at most {rows_per_step * team}, or raise global_batch_tokens."
        )
    cores = len(os.sched_getaffinity(0))
    threads = compute.threads or (earlier.threads if earlier else max(1, cores // world_size))
    return world_size, threads


def resolve_plan(
    compute: ComputeConfig,
    model: nn.Module,
    objectives: Sequence[Weighted],
    rows: Rows,
    *,
    rows_per_step: int,
    threads: int,
    group: Group,
    keeper: Keeper,
    events: Events,
    frozen: Frozen = NONE_FROZEN,
) -> Plan:
    """Return the plan of this run, equal on every rank; measure what neither the config nor an earlier plan says.

    Args:
        compute: numbers given by the person; 0 and 'auto' are resolved here.
        model: measured on, and left as it was: no gradient, no used-up noise.
        objectives: measured with.
        rows: the first ones are measured on.
        rows_per_step: over all ranks.
        threads: that this process already uses.
        group: rank 0 decides.
        keeper: where plan.json lies.
        events: where a change is told.
        frozen: the other models that objectives ask.
    """
    plan = None
    if group.leads:
        earlier = read_plan(keeper.path)
        plan = _fill_in(earlier, compute, model, objectives, rows, rows_per_step, threads, group, frozen)
        if earlier is not None:
            before, now = asdict(replace(earlier, changes=())), asdict(plan)
            changes = [f"{name} {value} -> {now[name]}" for name, value in before.items() if value != now[name]]
            for change in changes:
                events.event(f"plan changed: {change}; not bit for bit any more")
            plan = replace(plan, changes=(*earlier.changes, *changes))
        write_plan(plan, keeper.path)
        keeper.save(PLAN)
    return Plan(**group.broadcast_json(asdict(plan) if plan else None))


def _fill_in(
    earlier: Plan | None,
    compute: ComputeConfig,
    model: nn.Module,
    objectives: Sequence[Weighted],
    rows: Rows,
    rows_per_step: int,
    threads: int,
    group: Group,
    frozen: Frozen,
) -> Plan:
    most = -(-rows_per_step // group.rows.world_size)
    given: Precision | None = None if compute.precision == "auto" else compute.precision
    precision = given or (earlier.precision if earlier else None)
    micro = compute.micro_batch_rows or (earlier.micro_batch_rows if earlier else 0)
    if compute.shares_a_model() and group.world_size > 1:  # rank 0 alone can measure nothing
        precision = precision or ("bfloat16" if has_bfloat16(group.device) else "float32")
        micro = micro or usual_rows(most, compute.pipeline_stages)
    if precision is None or not micro:
        precision, micro = _measure(model, objectives, rows, precision, micro, most=most, group=group, frozen=frozen)
    return Plan(precision, threads, min(micro, most), group.world_size)


def _measure(
    model: nn.Module,
    objectives: Sequence[Weighted],
    rows: Rows,
    precision: Precision | None,
    micro: int,
    *,
    most: int,
    group: Group,
    frozen: Frozen,
) -> tuple[Precision, int]:
    """Return the fastest precision and micro-batch of a few forward and backward passes.

    The first pass is not counted: it pays for what the libraries prepare once. Candidates that come close to each other
    have a second turn, and each counts with its best pass, so that a busy moment of the machine does not decide; one that
    is far behind stays there. What time does not allow to be measured is decided by what usually holds: half precision
    where the processor has instructions for it, the middle micro-batch.
    """
    deadline = time.monotonic() + MEASURING_SECONDS
    noise = torch.get_rng_state()
    fits = _rows_that_fit(model, rows, group)
    sizes = [size for size in (1, 2, 4, 8, 16, 32) if size <= most and size <= fits] or [1]
    middle = micro or max(size for size in sizes if size <= USUAL_ROWS)
    usual: Precision = precision or ("bfloat16" if has_bfloat16(group.device) else "float32")

    def run_pass(kind: Precision, size: int) -> float:
        """Return rows per second of one forward and backward pass, 0 if there is no time left for it."""
        indices, visits = visits_of_step(rows, 0, 0, size)
        batch = take_batch(rows, indices, visits, group.device)
        started = time.monotonic()
        if started > deadline:
            return 0.0
        here = Group(0, 1, group.device)
        accumulate_gradients(model, objectives, [batch], group=here, precision=kind, seeds=[0], frozen=frozen)
        if group.device.type == "cuda":
            torch.cuda.synchronize()
        model.zero_grad(set_to_none=True)
        return size / (time.monotonic() - started)

    run_pass(usual, middle)
    if precision is None and not has_bfloat16(group.device):
        precision = "float32"
    if precision is None:
        half, plain = run_pass("bfloat16", middle), run_pass("float32", middle)
        if min(half, plain) > max(half, plain) * CLOSE:
            half, plain = max(half, run_pass("bfloat16", middle)), max(plain, run_pass("float32", middle))
        precision = usual if not plain else "bfloat16" if half > plain * WORTH_BFLOAT16 else "float32"
    if not micro:
        speeds = {size: run_pass(precision, size) for size in sizes if middle // 2 <= size <= middle * 2}
        best = max(speeds.values())
        for size in [size for size, speed in speeds.items() if speed > best * CLOSE]:
            speeds[size] = max(speeds[size], run_pass(precision, size))
        micro = middle
        for size, speed in speeds.items():
            if speed > speeds[micro] * (WORTH_MORE_ROWS if size > micro else 1.0):
                micro = size
    torch.set_rng_state(noise)
    return precision, micro


def usual_rows(most: int, stages: int) -> int:
    """Return the rows of a micro-batch where nothing can be measured: fewer in a pipeline, whose stages wait for the first ones.

    Args:
        most: rows of a step on one rank.
        stages: of the pipeline; 1 = none.
    """
    return max(1, min(USUAL_ROWS, most // max(1, PASSES_PER_STAGE * (stages - 1))))


def _rows_that_fit(model: Any, rows: Rows, group: Group) -> int:
    """Return how many rows' activations fit into a share of the memory, by a rough count from above."""
    config = model.config
    seq_len = len(rows.take([0])[0].input_ids)
    d_ff = getattr(config, "intermediate_size", 4 * config.hidden_size)  # DistilBERT and GPT-2 have another name for it
    # per layer: two norms, q k v, attention output, residuals (~12 widths), and gate, up, their product (~4 of d_ff)
    inside = (12 * config.hidden_size + 4 * d_ff) * 4
    layers = config.num_hidden_layers
    per_token = inside + layers * config.hidden_size * 4 if recomputes_layers(model) else layers * inside
    if group.device.type == "cuda":
        free = torch.cuda.mem_get_info(group.device)[0]
    else:
        # all there is, not what is free at this moment: a plan should not depend on what else runs
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // group.world_size
    return max(1, int(free * MEMORY_SHARE / (per_token * seq_len)))

"""What to tell a person whose run diverged: which rows, which term, which layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genai_core.objectives.base import CoupledObjective, Weighted
from genai_core.training.parallel import Group
from genai_core.training.pipeline import stage_of
from genai_core.training.rows import StepRows, name_row
from genai_core.training.sharding import whole
from genai_core.training.state import trained_parameters
from genai_core.training.step import NONE_FROZEN, Frozen, Precision, run_forward, view_of

SHOWN = 5


def largest_gradients(model: Any, shown: int = SHOWN) -> list[tuple[str, float]]:
    """Return the parameters with the largest gradient norms, those that are not finite first; of a pipeline those of all stages."""
    norms = [
        (name, float(whole(parameter.grad.norm())))
        for name, parameter in trained_parameters(model).items()
        if parameter.grad is not None
    ]
    stage = stage_of(model)
    if stage is not None:
        norms = list({name: norm for told in stage.tell_all(norms) for name, norm in told}.items())
    return sorted(norms, key=lambda item: (math.isfinite(item[1]), -item[1] if math.isfinite(item[1]) else 0.0))[:shown]


@torch.no_grad()
def worst_rows(
    model: Any,
    objectives: Sequence[Weighted],
    visits: StepRows,
    *,
    progress: float,
    precision: Precision,
    group: Group,
    frozen: Frozen = NONE_FROZEN,
    shown: int = SHOWN,
) -> list[tuple[str, float]]:
    """Return the rows of a step with the largest loss of their own by name, those that are not finite first.

    Args:
        model: as it is.
        objectives: of the run; those that compare rows say nothing of a single one.
        visits: the rows of the step.
        progress: of the training.
        precision: of the matrix products.
        group: the rows are shared over its ranks; if those share a model or a row, no row is looked at.
        frozen: the other models that objectives ask.
        shown: how many are returned.
    """
    if group.shards or group.team is not None:  # one row at a time, the ranks would make different passes
        return []
    plain = [one for one in objectives if not isinstance(one.objective, CoupledObjective) and one.is_active(progress)]
    losses: list[Tensor] = []
    for visit in group.share(range(len(visits.indices))):
        index = int(visits.indices[visit])
        batch = visits.take(slice(visit, visit + 1), group.device)
        loss = torch.zeros((), dtype=torch.float64, device=group.device)
        for one in plain:
            view = view_of(one, batch, progress)
            if not len(view["input_ids"]):
                continue
            outputs = run_forward(model, [one.objective], view, precision, frozen)
            for term in one.objective.loss(outputs, view).terms.values():  # type: ignore[union-attr]
                loss += one.weight * term.loss_sum.double() / term.count.clamp_min(1)
        losses.append(torch.stack([torch.tensor(float(index), dtype=torch.float64, device=group.device), loss]))
    found, _ = group.gather_rows(torch.stack(losses))
    pairs = [(name_row(visits.rows, int(index)), float(loss)) for index, loss in found.tolist()]
    return sorted(pairs, key=lambda item: (math.isfinite(item[1]), -item[1] if math.isfinite(item[1]) else 0.0))[:shown]


def describe_divergence(
    reason: str,
    step: int,
    terms: Mapping[str, float],
    rows: Sequence[tuple[str, float]],
    gradients: Sequence[tuple[str, float]],
) -> str:
    """Return the last words of a run that could not be saved."""
    return (
        f"Training diverged at step {step}: {reason}, after every skip and roll-back that its budget allows.\n"
        f"  terms:     {', '.join(f'{name} {value:.4g}' for name, value in terms.items())}\n"
        f"  rows:      {', '.join(f'{name} loss {loss:.4g}' for name, loss in rows) or 'not looked at where workers share a model'}\n"
        f"  gradients: {', '.join(f'{name} {norm:.3g}' for name, norm in gradients)}\n"
        "Lower optimizer.learning_rate or max_grad_norm, lengthen schedule.warmup_fraction, or look at those rows."
    )

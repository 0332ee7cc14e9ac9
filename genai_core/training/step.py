"""The gradient of one optimizer step: exact, however its rows are cut into micro-batches and spread over ranks.

    0. view     every objective's own rows of each micro-batch, corrupted if it corrupts
    1. count    every term's units, over all micro-batches and ranks, from the views alone
    2. couple   objectives that compare rows: representations of all rows without a graph, their loss, and the
                gradient of the loss with respect to each representation (GradCache, arXiv 2101.06983)
    3. descend  per micro-batch and pass that objectives share: forward, then backward of
                    sum_i weight_i * loss_sum_i / count_i  +  sum_c <representation_c, cached gradient_c>
    4. add up   gradients over ranks

Only here is anything divided. Dropout draws from a generator seeded per micro-batch, so the second pass of a coupled
objective sees the noise of the first. Objectives that look at the same rows in the same way share a pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from genai_core.models.backbone import head_bias, head_states, head_weight, hidden_states, see_segments
from genai_core.models.row_head import count_row_classes, row_logits
from genai_core.objectives.base import Batch, Corrupting, CoupledObjective, Forward, Max, Mean, Objective, Weighted
from genai_core.training.compared_heads import compare_heads
from genai_core.training.context import own_labels
from genai_core.training.head import label_logps
from genai_core.training.parallel import Group
from genai_core.training.pipeline import stage_of
from genai_core.training.sharding import own_cut

Precision = Literal["float32", "bfloat16", "float64"]
Frozen = Mapping[str, Any]
"""Models that are only asked, by the name that an objective's passes have for them: 'teacher'. In eval mode."""

NONE_FROZEN: Frozen = {}


@dataclass(frozen=True, slots=True)
class StepFigures:
    """What a step's gradient came with, equal on all ranks."""

    loss: float
    """Weighted sum of the terms' means, in nats."""

    terms: Mapping[str, float]
    """Mean of each term, without its weight."""

    weights: Mapping[str, float]
    """Weight of each term in the loss."""

    counts: Mapping[str, float]
    metrics: Mapping[str, float] = field(default_factory=dict)


def noise_seed(seed: int, step: int, micro_step: int, rank: int) -> int:
    """Return the seed of a micro-batch's dropout, a pure function of its arguments."""
    return int(np.random.SeedSequence([seed, step, micro_step, rank]).generate_state(1, np.uint64)[0] >> 1)


def states_at(
    model: Any,
    precision: Precision,
    input_ids: Tensor,
    position_ids: Tensor,
    seen: Tensor | None = None,
    token_types: Tensor | None = None,
) -> Tensor:
    """Return hidden states (B, T, D) as training computes them: under autocast if the precision is bfloat16."""
    with _autocast(input_ids.device, precision):
        return hidden_states(model, input_ids, position_ids, seen, token_types)


def run_forward(
    model: Any, objectives: Sequence[Objective], batch: Batch, precision: Precision, frozen: Frozen = NONE_FROZEN
) -> dict[str, Tensor]:
    """Return the outputs that the objectives need, by name, from one pass through the model and each frozen one they name.

    Args:
        model: the policy; of a stage of a pipeline but the last only 'hidden' is returned, the states that leave it.
        objectives: whose `forwards` are joined; they attend and read alike (`pass_of`).
        batch: (B, T) tensors.
        precision: of the matrix products.
        frozen: the other models.
    """
    forwards = [one for objective in objectives for one in objective.forwards()]
    wanted: frozenset[str] = frozenset().union(*(one.outputs for one in forwards))
    seen = None
    if forwards[0].attention == "bidirectional":
        seen = see_segments(batch["segment_ids"])
    elif forwards[0].attention == "given":
        seen = batch["seen"]
    hidden = states_at(model, precision, batch["input_ids"], batch["position_ids"], seen, batch.get("token_types"))
    outputs = {"hidden": hidden}
    stage = stage_of(model)
    if stage is not None and not stage.is_last:
        return outputs
    if "logps" in wanted:
        dtype = torch.bfloat16 if precision == "bfloat16" else None
        with _autocast(hidden.device, precision):
            predicting = head_states(model, hidden)
        outputs["logps"] = label_logps(
            predicting,
            head_weight(model),
            batch["labels"],
            bias=head_bias(model),
            offset=forwards[0].offset,
            excluded=forwards[0].excluded,
            matmul_dtype=dtype,
        )
    for one in forwards:
        if one.compare is not None:
            outputs["compared"] = _compare(model, hidden, one, frozen[one.model], batch, seen, precision)
    if "row_logits" in wanted:
        outputs["row_logits"] = row_logits(model, hidden)
    return outputs


def _autocast(device: torch.device, precision: Precision) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _compare(
    model: Any, hidden: Tensor, one: Forward, other: Any, batch: Batch, seen: Tensor | None, precision: Precision
) -> Tensor:
    """Return 'compared', (B, T), from the policy's hidden states and a pass through the other model."""
    assert one.compare is not None
    with torch.no_grad():
        other_hidden = states_at(other, precision, batch["input_ids"], batch["position_ids"], seen)
    return compare_heads(
        hidden,
        head_weight(model),
        other_hidden,
        head_weight(other),
        batch["labels"],
        one.compare,
        offset=one.offset,
        matmul_dtype=torch.bfloat16 if precision == "bfloat16" else None,
    )


def view_of(weighted: Weighted, batch: Batch, progress: float) -> Batch:
    """Return the rows of a micro-batch that an objective is computed on, as the model will see them; perhaps none.

    Args:
        weighted: the objective and its share of the rows.
        batch: with noise and place if the objective corrupts or has a share only.
        progress: of the training, in [0, 1).
    """
    if weighted.dataset is not None:
        own = batch["source"] == weighted.dataset
        batch = {name: tensor[own] for name, tensor in batch.items()}
    low, high = weighted.rows
    if (low, high) != (0.0, 1.0):
        place = batch["place"]
        own = (place >= low) & (place < high)
        batch = {name: tensor[own] for name, tensor in batch.items()}
        # spread evenly over [0, 1) again, so that the share that a row fell into says nothing about what is drawn
        batch["place"] = (batch["place"] - low) / (high - low)
    return weighted.objective.corrupt(batch, progress) if isinstance(weighted.objective, Corrupting) else batch


def pass_of(weighted: Weighted, view: Batch) -> tuple[Any, ...]:
    """Return what two objectives must have in common to share a pass through the model."""
    forwards: set[tuple[Any, ...]] = {
        (one.attention, one.offset, one.excluded) for one in weighted.objective.forwards()
    }
    assert len(forwards) == 1, f"{type(weighted.objective).__name__} needs passes of different kinds"
    return (id(view), *forwards.pop())


def accumulate_gradients(
    model: nn.Module,
    objectives: Sequence[Weighted],
    batches: Sequence[Batch],
    *,
    group: Group,
    precision: Precision,
    seeds: Sequence[int],
    progress: float = 0.0,
    frozen: Frozen = NONE_FROZEN,
) -> StepFigures:
    """Leave the gradient of the whole step in `.grad` on every rank; return the figures of the step.

    Args:
        model: in training mode, gradients cleared.
        objectives: with their weights.
        batches: this rank's micro-batches, at least one.
        group: the ranks.
        precision: of the matrix products.
        seeds: one a micro-batch, for dropout.
        progress: of the training, in [0, 1), for objectives whose noise changes on the way.
        frozen: the other models that objectives ask.
    """
    objectives = [one for one in objectives if one.is_active(progress)]
    batches = [own_labels(batch, group) for batch in batches]
    if group.shards:
        batches, seeds = _as_many_as_others(batches, seeds, group)
    views = [[view_of(one, batch, progress) for one in objectives] for batch in batches]
    counts = _sum_counts(objectives, views, group)
    coupled = {
        index: _cache_gradients(
            model,
            one,
            [views_of_batch[index] for views_of_batch in views],
            counts,
            any_rows=batches[0],
            group=group,
            precision=precision,
            seeds=seeds,
        )
        for index, one in enumerate(objectives)
        if isinstance(one.objective, CoupledObjective)
    }
    sums: dict[str, Tensor] = {}
    means: dict[str, Tensor] = {}
    maxima: dict[str, Tensor] = {}
    stage = stage_of(model)
    gives_loss = stage is None or stage.is_last

    def make_pass(micro_step: int, indices: Sequence[int]) -> Tensor:
        """Return the loss of the objectives that share a pass, (); of a stage before the last the states that leave it."""
        view, seed = views[micro_step][indices[0]], seeds[micro_step]
        torch.manual_seed(seed if stage is None or stage.is_first else noise_seed(seed, 0, 0, stage.index))
        asked = [objectives[index].objective for index in indices]
        if not len(view["input_ids"]):
            outputs = run_forward(model, asked, _one_row(batches[0]), precision, frozen)
            return torch.stack([(one * 0).sum() for one in outputs.values()]).sum()
        outputs = run_forward(model, asked, view, precision, frozen)
        if not gives_loss:
            return outputs["hidden"]
        total = torch.zeros((), device=view["input_ids"].device)
        for index in indices:
            one = objectives[index]
            if isinstance(one.objective, CoupledObjective):
                representation = one.objective.represent(outputs, view)
                total = total + (representation * coupled[index].slopes[micro_step]).sum()
                continue
            found = one.objective.loss(outputs, view)
            for name, term in found.terms.items():
                total = total + term.loss_sum * (one.weight / _at_least_one(counts[name + one.suffix]))
                _add(sums, name + one.suffix, term.loss_sum)
            _note(means, maxima, found.metrics, one.suffix)
        return total

    passes = [
        (micro_step, indices)
        for micro_step, own in enumerate(views)
        for indices in _passes(objectives, own, blank=group.shards)
    ]
    if stage is None:
        for one_pass in passes:
            make_pass(*one_pass).backward()
    else:
        stage.descend([(views[at][some[0]]["input_ids"].shape, partial(make_pass, at, some)) for at, some in passes])
    for own in views if gives_loss else ():
        for one, view in zip(objectives, own, strict=True):
            if not len(view["input_ids"]) and not isinstance(one.objective, CoupledObjective):
                # no pass, but every rank must bring the same names to the sums
                found = one.objective.loss(_no_outputs(view, model), view)
                for name, term in found.terms.items():
                    _add(sums, name + one.suffix, term.loss_sum)
                _note(means, maxima, found.metrics, one.suffix)
    _add_up_gradients(model, group)
    figures = _reduce(sums, means, maxima, group)
    if stage is not None:
        stage.join_tied()
        figures = _Reduced(**stage.tell(asdict(figures)))
    for cached in coupled.values():  # computed over all rows on every rank already
        figures.sums.update(cached.sums)
        figures.metrics.update(cached.metrics)
    terms = {name: figures.sums[name] / _at_least_one(count) for name, count in counts.items()}
    weights = {
        name + one.suffix: one.weight
        for one, view in zip(objectives, views[0], strict=True)
        for name in one.objective.counts(view)
    }
    loss = sum(weights[name] * mean for name, mean in terms.items())
    return StepFigures(loss, terms, weights, counts, figures.metrics)


@dataclass(slots=True)
class _Cached:
    slopes: list[Tensor]
    sums: dict[str, float]
    metrics: dict[str, float]


@dataclass(slots=True)
class _Reduced:
    sums: dict[str, float]
    metrics: dict[str, float]


def _as_many_as_others(
    batches: Sequence[Batch], seeds: Sequence[int], group: Group
) -> tuple[Sequence[Batch], Sequence[int]]:
    """Return the micro-batches and seeds with as many without a row behind them as make every rank's equally many."""
    most = torch.tensor([len(batches)], device=group.device)
    group.max_(most)
    more = int(most) - len(batches)
    none = {name: tensor[:0] for name, tensor in batches[0].items()}
    return [*batches, *[none] * more], [*seeds, *[0] * more]


def _one_row(batch: Batch) -> Batch:
    """Return one row for a pass of which nothing is wanted but that it is made."""
    row = {name: tensor[:1] for name, tensor in batch.items()}
    return {**row, "seen": see_segments(row["segment_ids"])}


def _passes(objectives: Sequence[Weighted], views: Sequence[Batch], *, blank: bool) -> list[list[int]]:
    """Return which objectives share a pass, in their order; those without a row here need none, unless blank ones count."""
    passes: dict[tuple[Any, ...], list[int]] = {}
    for index, (one, view) in enumerate(zip(objectives, views, strict=True)):
        if blank or len(view["input_ids"]):
            passes.setdefault(pass_of(one, view), []).append(index)
    return list(passes.values())


def _no_outputs(view: Batch, model: Any) -> dict[str, Tensor]:
    """Return the outputs of a pass over no rows."""
    weight = head_weight(model)  # (V, D)
    none = torch.zeros(view["labels"].shape, device=weight.device, dtype=weight.dtype)  # (0, T)
    return {
        "logps": none,
        "compared": none,
        "hidden": none.unsqueeze(-1).expand(-1, -1, weight.shape[1]),
        "row_logits": none.new_zeros((0, count_row_classes(model))),
    }


def _sum_counts(objectives: Sequence[Weighted], views: Sequence[Sequence[Batch]], group: Group) -> dict[str, float]:
    """Return each term's count over the whole step; the only divisors there are."""
    totals: dict[str, float] = {}
    for index, one in enumerate(objectives):
        for own in views:
            for name, count in one.objective.counts(own[index]).items():
                totals[name + one.suffix] = totals.get(name + one.suffix, 0.0) + float(count)
    vector = torch.tensor(list(totals.values()), dtype=torch.float64, device=group.device)
    group.sum_([vector])
    return dict(zip(totals, vector.tolist(), strict=True))


def _cache_gradients(
    model: nn.Module,
    weighted: Weighted,
    views: Sequence[Batch],
    counts: Mapping[str, float],
    *,
    any_rows: Batch,
    group: Group,
    precision: Precision,
    seeds: Sequence[int],
) -> _Cached:
    """Return the gradient of a coupled objective with respect to the representations of each micro-batch."""
    objective = weighted.objective
    assert isinstance(objective, CoupledObjective)
    parts: list[Tensor] = []
    with torch.no_grad():
        for view, seed in zip(views, seeds, strict=True):
            torch.manual_seed(seed)
            if len(view["input_ids"]):
                representation = objective.represent(run_forward(model, [objective], view, precision), view)
            elif group.shards:
                blank = _one_row(any_rows)
                representation = objective.represent(run_forward(model, [objective], blank, precision), blank)[:0]
            else:
                representation = objective.represent(_no_outputs(view, model), view)
            parts.append(representation)
    whole, start = group.gather_rows(torch.cat(parts))
    whole.requires_grad_(True)
    found = objective.couple(whole)
    total = sum(
        (
            term.loss_sum * (weighted.weight / _at_least_one(counts[name + weighted.suffix]))
            for name, term in found.terms.items()
        ),
        start=torch.zeros((), dtype=whole.dtype, device=whole.device),
    )
    (slope,) = torch.autograd.grad(total, whole)
    own = slope[start : start + sum(len(part) for part in parts)]
    means: dict[str, Tensor] = {}
    maxima: dict[str, Tensor] = {}
    _note(means, maxima, found.metrics, weighted.suffix)
    return _Cached(
        slopes=list(own.split([len(part) for part in parts])),
        sums={name + weighted.suffix: float(term.loss_sum.detach()) for name, term in found.terms.items()},
        metrics=_finish_metrics({name: value.tolist() for name, value in means.items()}, maxima),
    )


def _at_least_one(count: float) -> float:
    """A step without any unit has loss 0, not 0 / 0."""
    return max(1.0, count)


def _add_up_gradients(model: nn.Module, group: Group) -> None:
    if group.shards:  # summed layer by layer, in the backward pass
        return
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if group.world_size > 1:
        for parameter in trained:  # every rank must bring the same tensors to the collective
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
    group.sum_([own_cut(parameter.grad) for parameter in trained if parameter.grad is not None])


def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    wide = value.detach().double()
    sums[name] = sums[name] + wide if name in sums else wide


def _note(means: dict[str, Tensor], maxima: dict[str, Tensor], metrics: Mapping[str, Mean | Max], suffix: str) -> None:
    for name, metric in ((name + suffix, metric) for name, metric in metrics.items()):
        if isinstance(metric, Mean):
            _add(means, name, torch.stack([metric.total.double(), metric.count.double()]))
        else:
            value = metric.value.detach().double()
            maxima[name] = torch.maximum(maxima[name], value) if name in maxima else value


def _reduce(sums: dict[str, Tensor], means: dict[str, Tensor], maxima: dict[str, Tensor], group: Group) -> _Reduced:
    """Add up (or keep the largest of) what the ranks have; all have the same names."""
    names, pair_names = sorted(sums), sorted(means)
    parts = [sums[name].reshape(1) for name in names] + [means[name] for name in pair_names]
    values: list[float] = []
    if parts:
        vector = torch.cat(parts)
        group.sum_([vector])
        values = vector.tolist()
    if maxima:
        largest = torch.stack([maxima[name] for name in sorted(maxima)])
        group.max_(largest)
        maxima = dict(zip(sorted(maxima), largest.unbind(), strict=True))
    pairs = {name: values[len(names) + 2 * at :][:2] for at, name in enumerate(pair_names)}
    return _Reduced(dict(zip(names, values, strict=False)), _finish_metrics(pairs, maxima))


def _finish_metrics(pairs: Mapping[str, Sequence[float]], maxima: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: total / max(1.0, count) for name, (total, count) in pairs.items()} | {
        name: float(value) for name, value in maxima.items()
    }

"""What a run is made of besides its config: weights, moments, counters. Out to tensors and JSON, and back, exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from genai_core.training.checkpoint import Checkpoint
from genai_core.training.optimizers import Optimizers
from genai_core.training.parallel import Group
from genai_core.training.pipeline import stage_of
from genai_core.training.sharding import copy_into, join_cuts, own_cut

RECENT_STEPS = 10


@dataclass(slots=True)
class Counters:
    """Where a run is. A roll-back does not touch any of them but `skipped_in_a_row`."""

    step: int = 0
    """Steps made, skipped ones included; also the position in the data."""

    tokens_seen: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    rollbacks: int = 0
    recent_losses: list[float] = field(default_factory=list)
    """Losses of the last RECENT_STEPS steps that were taken."""

    def note_loss(self, loss: float) -> None:
        """Remember the loss of a step that was taken."""
        self.recent_losses.append(loss)
        del self.recent_losses[:-RECENT_STEPS]

    def to_json(self) -> dict[str, Any]:
        """Return the counters as JSON."""
        return asdict(self)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what is trained, by name, tied weights once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def read_tensors(
    model: nn.Module, optimizers: Optimizers, take: Callable[[Tensor], Tensor] = own_cut
) -> dict[str, dict[str, Tensor]]:
    """Return weights, moments and random state by file and name, of cut ones this rank's cut; views, not copies.

    Args:
        model: whose trained weights are read.
        optimizers: whose moments are.
        take: what is taken of a tensor that may be cut.
    """
    parameters = trained_parameters(model)
    moments = {
        f"{name}/{key}": take(value)
        for name, parameter in parameters.items()
        for key, value in optimizers.state_of(parameter).items()
    }
    return {
        "model": {name: take(parameter.detach()) for name, parameter in parameters.items()},
        "optimizer": moments,
        "rng": {"torch": torch.get_rng_state()},
    }


@torch.no_grad()
def read_back(
    checkpoint: Checkpoint | None,
    model: nn.Module,
    optimizers: Optimizers,
    group: Group,
    more: Callable[[str, str, Tensor], None] | None = None,
) -> dict[str, Any] | None:
    """Put rank 0's checkpoint into every rank's weights and moments; return its JSON state, None if there is none.

    Args:
        checkpoint: rank 0's; None on the others.
        model: its trained weights are overwritten.
        optimizers: its moments are.
        group: the ranks.
        more: is given (file, name, tensor) of the other files.

    Raises:
        KeyError: the tensors are of another model.
    """
    state: dict[str, Any] | None = group.broadcast_json(None if checkpoint is None else dict(checkpoint.state))
    if state is None:
        return None
    parts = None
    if checkpoint is not None:
        parts = {part: content for part, content in join_cuts(checkpoint.tensors).items() if part != "rng"}
        torch.set_rng_state(checkpoint.tensors["rng"]["torch"])
    parameters, missing = trained_parameters(model), set(trained_parameters(model))
    optimizers.forget()
    stage = stage_of(model)
    for part, full, value in group.stream(parts):
        if stage is not None and stage.is_elsewhere(full.split("/")[0]):
            continue
        if part == "model":
            copy_into(parameters[full], value)
            missing.discard(full)
        elif part == "optimizer":
            name, _, key = full.rpartition("/")
            # the step count stays where fused AdamW keeps it: beside its parameter, float32
            kept = torch.empty_like(parameters[name]) if value.ndim else torch.empty_like(value)
            copy_into(kept, value)
            optimizers.state_of(parameters[name])[key] = kept
        elif more is not None:
            more(part, full, value)
    if missing:
        raise KeyError(f"weights that the checkpoint does not have: {sorted(missing)[:4]}")
    return state

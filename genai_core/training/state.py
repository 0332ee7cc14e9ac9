"""What a run is made of besides its config: weights, moments, counters. Out to tensors and JSON, and back, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from genai_core.training.optimizers import Optimizers

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


def read_tensors(model: nn.Module, optimizers: Optimizers) -> dict[str, dict[str, Tensor]]:
    """Return weights, moments and random state by file and name; views, not copies."""
    parameters = trained_parameters(model)
    moments = {
        f"{name}/{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizers.state_of(parameter).items()
    }
    return {
        "model": {name: parameter.detach() for name, parameter in parameters.items()},
        "optimizer": moments,
        "rng": {"torch": torch.get_rng_state()},
    }


@torch.no_grad()
def write_tensors(model: nn.Module, optimizers: Optimizers, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Put weights, moments and random state back as `read_tensors` found them.

    Raises:
        KeyError: the tensors are of another model.
    """
    parameters = trained_parameters(model)
    if set(parameters) != set(tensors["model"]):
        raise KeyError(f"weights of other names: {sorted(set(parameters) ^ set(tensors['model']))[:4]}")
    optimizers.forget()
    for name, parameter in parameters.items():
        parameter.copy_(tensors["model"][name])
    for full, value in tensors["optimizer"].items():
        name, _, key = full.rpartition("/")
        parameter = parameters[name]
        # the step count stays where fused AdamW keeps it: beside its parameter, float32
        optimizers.state_of(parameter)[key] = value.to(parameter.device, copy=True)
    torch.set_rng_state(tensors["rng"]["torch"])


def blank_tensors(model: nn.Module, optimizers: Optimizers, *, moments: bool) -> dict[str, dict[str, Tensor]]:
    """Return tensors of the shapes that `read_tensors` gives, for a rank that is about to be told their values."""
    parameters = trained_parameters(model)
    blank = {"model": {name: torch.empty_like(parameter) for name, parameter in parameters.items()}, "optimizer": {}}
    if moments:
        for name, parameter in parameters.items():
            for key, value in optimizers.blank_state(parameter).items():
                blank["optimizer"][f"{name}/{key}"] = value
    return {**blank, "rng": {"torch": torch.get_rng_state()}}

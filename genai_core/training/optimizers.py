"""The update rule: torch's optimizers (Muon's step is ours), each over the parameters that it is meant for.

    adamw   all parameters; matrices decay, vectors (norms, biases, DoRA magnitudes) do not
    muon    the matrices between embeddings and head: momentum, then the nearest orthogonal matrix (Jordan et al. 2024,
            kellerjordan.github.io/posts/muon); embeddings, head and vectors stay with AdamW
    sgd     all parameters, momentum if asked for, no decay

Muon's step on an (A, B) matrix is scaled by sqrt(max(1, A / B)), its author's choice, so its learning rate is a length:
0.02 moves every singular direction of a square matrix by 0.02 a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from genai_core.config.training import AdamW, Muon, Optimizer, Sgd
from genai_core.training.muon import BatchedMuon


class Optimizers:
    """What updates a model: one or two optimizers that share its trained parameters and take turns in every step."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        """Keep the optimizers; the learning rate that each group has now is its peak."""
        self._parts = tuple(parts)
        self._owner = {
            parameter: part for part in self._parts for group in part.param_groups for parameter in group["params"]
        }
        self._peaks = [(group, float(group["lr"])) for part in self._parts for group in part.param_groups]

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def step(self, share: float) -> None:
        """Update the parameters at this share of the peak learning rates."""
        for group, peak in self._peaks:
            group["lr"] = peak * share
        for part in self._parts:
            part.step()

    def state_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        """Return what is remembered of a parameter, by name; filled by the first step, and may be written to."""
        state: dict[str, Any] = self._owner[parameter].state[parameter]
        return state

    def forget(self) -> None:
        """Forget all that is remembered."""
        for part in self._parts:
            part.state.clear()


def make_optimizers(model: nn.Module, config: Optimizer) -> Optimizers:
    """Return the update rule of a model's trained parameters, tied ones once."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    match config:
        case AdamW():
            return Optimizers([_adamw(parameters, config.learning_rate, config)])
        case Sgd():
            return Optimizers([torch.optim.SGD(parameters, lr=config.learning_rate, momentum=config.momentum)])
        case Muon():
            outer = _embeddings(model)
            hidden = [parameter for parameter in parameters if parameter.ndim == 2 and parameter not in outer]
            inner = set(hidden)
            others = [parameter for parameter in parameters if parameter not in inner]
            parts: list[torch.optim.Optimizer] = []
            if others:
                parts.append(_adamw(others, config.adamw_learning_rate, config))
            if hidden:
                parts.append(
                    BatchedMuon(
                        hidden, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
                    )
                )
            return Optimizers(parts)
        case _:
            assert_never(config)


def _adamw(parameters: Sequence[nn.Parameter], rate: float, config: AdamW | Muon) -> torch.optim.AdamW:
    """Return fused AdamW; under Muon nothing of it decays: embeddings have no scale to hold down."""
    decay = config.weight_decay if isinstance(config, AdamW) else 0.0
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": chosen, "weight_decay": share}
        for kind, share in ((matrices, decay), (vectors, 0.0))
        # the fused update takes tensors that are cut over ranks, or such that are not, in one list
        for chosen in ([one for one in kind if isinstance(one, DTensor) == cut] for cut in (False, True))
        if chosen
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def _embeddings(model: Any) -> set[nn.Parameter]:
    """Return the weights of every embedding and of the head; a row of them is a token, not a direction to orthogonalise."""
    found = {
        parameter for module in model.modules() if isinstance(module, nn.Embedding) for parameter in module.parameters()
    }
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return found | set(head.parameters() if head is not None else ())

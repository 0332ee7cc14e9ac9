"""Tensor parallelism: the ranks of a team hold the same layers, of every matrix in them one cut, and work on the same rows.

    colwise   y_r = x W_r^T           W cut by what comes out: heads, or channels of the feed-forward part
    rowwise   y = sum_r x_r W_r^T     W cut by what goes in; one sum over the team for each

Shoeybi et al. 2019, arXiv 1909.08053. Which matrix is cut how is the architecture's own `tp_plan`, and transformers' styles do
it (DTensors inside a linear layer, plain tensors between layers). Embeddings, norms and head stay whole on every rank, because
log-probabilities are computed from the head's matrix; their gradients come out of the same numbers on all ranks of a team,
so they are equal bit for bit.

Two additions to transformers' styles. The norms of queries and keys (Qwen 3) are whole but see a rank's own heads only, so
their gradients are summed over the team; transformers sums what has been accumulated, once for every micro-batch, which
would count the earlier ones twice. And adapters: of W + B A the factor on W's cut side is cut like W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from genai_core.errors import ConfigError
from genai_core.models.backbone import causal_model
from genai_core.models.encoders import is_encoder
from genai_core.training.parallel import Group
from genai_core.training.sharding import own_cut, whole

COLWISE = frozenset({"colwise", "colwise_gather_output", "colwise_rep"})
ROWWISE = frozenset({"rowwise", "rowwise_split_input", "rowwise_rep"})
SUMMED = "replicated_with_grad_allreduce"


def cut_matrices(model: Any, group: Group, mesh: DeviceMesh) -> None:
    """Cut the matrices of a model's layers over each team, in place and onto the group's device; all begin with rank 0's.

    Args:
        model: a causal model, adapted or not, whole on every rank.
        group: the ranks, which have formed teams; it is told that they hold cuts.
        mesh: of this rank's team, one dimension.

    Raises:
        ConfigError: the model is an encoder, has no plan or one of other styles, or its heads cannot be shared evenly.
    """
    from transformers.distributed.tensor_parallel import apply_tensor_parallelism

    inner, size = causal_model(model), mesh.size()
    if is_encoder(inner):
        raise ConfigError(
            f"compute.tensor_parallel={size} cuts decoders, but the base is an encoder ({type(inner).__name__}). "
            "Set it to 1, and compute.activation_checkpointing=true to save memory."
        )
    plan = _layer_plan(inner, size)
    _check_heads(inner, size)
    for tensor in [*model.parameters(), *model.buffers()]:
        moved = tensor.detach().to(group.device)
        group.broadcast_([moved])
        tensor.data.copy_(moved)
    summed = [name for name, style in plan.items() if style == SUMMED]
    cut = _name_layers(inner, {name: style for name, style in plan.items() if style != SUMMED}, size)
    apply_tensor_parallelism(inner, mesh, cut)
    model.to(group.device)
    assert group.team is not None
    for name in summed:
        for parameter in inner.get_submodule(name).parameters():
            if parameter.requires_grad:
                parameter.register_hook(_sum_over(group.team))
    group.cuts = True


def _sum_over(team: Group) -> Callable[[Tensor], Tensor]:
    def summed(grad: Tensor) -> Tensor:
        grad = grad.clone()
        team.sum_([grad])
        return grad

    return summed


def _layer_plan(inner: Any, size: int) -> dict[str, str]:
    """Return the style of every module of a layer that the architecture's plan names; those outside layers stay whole."""
    from transformers.distributed.parallel_utils import replace_layer_number_by_wildcard

    rules = {name: style for name, style in (inner.tp_plan or {}).items() if ".*." in name}
    unknown = sorted(set(rules.values()) - COLWISE - ROWWISE - {SUMMED})
    if not rules or unknown:
        said = f"is cut in ways not supported here ({', '.join(unknown)})" if unknown else "has no tp_plan"
        raise ConfigError(
            f"compute.tensor_parallel={size}: {type(inner).__name__} {said}. Set it to 1 and use compute.sharding='fully_shard', "
            "or a base of the Llama, Mistral or Qwen kind."
        )
    plan = {}
    for name, _ in inner.named_modules():
        generic = replace_layer_number_by_wildcard(name)
        if generic in rules:
            plan[name] = rules[generic]
    return plan


def _check_heads(inner: Any, size: int) -> None:
    config = inner.config.get_text_config()
    heads = config.num_attention_heads
    keys = getattr(config, "num_key_value_heads", None) or heads
    if heads % size or keys % size:
        fitting = [number for number in range(1, size) if heads % number == 0 and keys % number == 0]
        raise ConfigError(
            f"compute.tensor_parallel={size} does not divide the model's {heads} heads and {keys} key-value heads. "
            f"Set it to {fitting[-1]}, or use a base whose heads it divides."
        )


def _name_layers(inner: Any, plan: dict[str, str], size: int) -> dict[str, str]:
    """Return the style of every parameter and linear layer, those of adapters named too."""
    cut: dict[str, str] = {}
    for name, style in plan.items():
        for part in _linear_parts(inner.get_submodule(name), style, size):
            place = f"{name}.{part}" if part else name
            linear = inner.get_submodule(place)
            cut.update({f"{place}.{key}": style for key, _ in linear.named_parameters(recurse=False)})
            cut[place] = style
    return cut


def _linear_parts(module: nn.Module, style: str, size: int) -> list[str]:
    """Return what of a module is cut: itself; or its base layer and the factor of each adapter that lies on the cut side."""
    if not hasattr(module, "base_layer"):
        return [""]
    if len(getattr(module, "lora_magnitude_vector", ())):
        raise ConfigError(
            f"compute.tensor_parallel={size}: DoRA learns the lengths of whole matrices, which no rank holds. "
            "Set tuning.dora=false, or compute.tensor_parallel=1."
        )
    side = "lora_B" if style in COLWISE else "lora_A"
    return ["base_layer", *(f"{side}.{name}" for name in getattr(module, side))]


def is_cut(tensor: Tensor) -> bool:
    """Return whether a rank holds a part of a tensor only."""
    return isinstance(tensor, DTensor) and any(isinstance(one, Shard) for one in tensor.placements)


def gradient_norm(parameters: Iterable[nn.Parameter], group: Group) -> Tensor:
    """Return the norm of the whole gradient, equal on every rank of a team.

    Args:
        parameters: of this rank; those without a gradient count nothing.
        group: the ranks. Cuts are added up over the team, what is whole counts once.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not group.cuts:
        return whole(torch.nn.utils.get_total_norm(gradients))
    assert group.team is not None
    squares = torch.zeros(2, dtype=torch.float64, device=group.device)  # of cuts, of what is whole
    for place, wanted in enumerate((True, False)):
        chosen = [own_cut(one) for one in gradients if is_cut(one) == wanted]
        if chosen:
            squares[place] = torch.nn.utils.get_total_norm(chosen).double().square()
    squares[1] /= group.team.world_size  # the same number on each: added up, it cannot differ between ranks either
    group.team.sum_([squares])
    return squares.sum().sqrt()


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float, norm: Tensor) -> None:
    """Scale gradients in place so that their norm, which is given, is at most `max_norm`."""
    plain: list[nn.Parameter] = []
    cut: list[nn.Parameter] = []
    for parameter in parameters:
        (cut if isinstance(parameter, DTensor) else plain).append(parameter)
    for chosen in (plain, cut):  # torch does not take both in one list
        if chosen:
            torch.nn.utils.clip_grads_with_norm_(chosen, max_norm, norm)


def take_whole(group: Group) -> Callable[[Tensor], Tensor]:
    """Return what puts a tensor together in rank 0's main memory, for a checkpoint; its team must ask, others need not."""

    def take(tensor: Tensor) -> Tensor:
        if group.rows.rank != 0 or not isinstance(tensor, DTensor):
            return own_cut(tensor)
        found = whole(tensor)
        return found.cpu() if group.leads else found[:0]

    return take

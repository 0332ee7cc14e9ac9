"""Weights, gradients and moments cut over the ranks (FSDP2): each holds 1 / W of them, and a layer at a time whole.

    forward     a layer's weights are gathered, used, and let go        reduce    its gradient is summed, each rank keeps its cut
    backward    gathered again, used, let go                            update    each rank moves its cut

Zhao et al. 2023, arXiv 2304.11277; torch's `fully_shard`. Gradients are sums over ranks, not means (the objective was divided
by the counts of the whole step already): every module's divide factor is 1. Embeddings, head and last norm belong to
the root and stay whole from the forward to the end of the backward pass, because log-probabilities are computed from the
head's matrix after the decoder has returned.

Every rank must run every layer equally often, or all wait for ever: a rank with fewer micro-batches, or with no row for
some objective, runs blank ones (training/step.py).
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from genai_core.config.training import TrainingConfig
from genai_core.errors import ConfigError
from genai_core.models.backbone import RUN_DECODER, causal_model
from genai_core.models.encoders import is_encoder
from genai_core.training.parallel import Group

SHARDED = ("model", "optimizer")
"""Files of a checkpoint that every rank has its own of: model-00000, model-00001, ..."""


def check_sharding(config: TrainingConfig, *cut_by: str) -> None:
    """Raise ConfigError if a training cannot be computed on cut weights.

    Args:
        config: of the training.
        cut_by: what cuts them and what leaves them whole, as `TrainingConfig.why_not_cut` says them.
    """
    if reason := config.why_not_cut(*cut_by):
        raise ConfigError(reason)


def shard_model(model: Any, group: Group) -> None:
    """Cut a model's weights over the ranks, in place; all begin with rank 0's. Alone, nothing is done.

    Args:
        model: a causal model, adapted or not, whole on every rank.
        group: the ranks; it is told that they share one model.

    Raises:
        ConfigError: the model is an encoder.
    """
    if group.world_size == 1:
        return
    if is_encoder(causal_model(model)):
        raise ConfigError(
            f"compute.sharding='fully_shard' cuts decoders, but the base is an encoder ({type(causal_model(model)).__name__}). "
            "Use compute.sharding='none', and compute.activation_checkpointing=true to save memory."
        )
    for tensor in [*model.parameters(), *model.buffers()]:
        moved = tensor.detach().to(group.device)
        group.broadcast_([moved])
        tensor.data.copy_(moved)
    from transformers.modeling_layers import GradientCheckpointingLayer

    inner = causal_model(model)
    mesh = init_device_mesh(group.device.type, (group.world_size,))
    for module in inner.get_decoder().modules():
        if isinstance(module, GradientCheckpointingLayer):  # transformers' name for what is repeated: a decoder layer
            fully_shard(module, mesh=mesh)
    fully_shard(inner, mesh=mesh, reshard_after_forward=False)
    for module in inner.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sum
    setattr(inner, RUN_DECODER, types.MethodType(_run_decoder, inner))
    register_fsdp_forward_method(inner, RUN_DECODER)
    group.shards = True


def _run_decoder(self: Any, **inputs: Any) -> Any:
    return self.get_decoder()(**inputs)


def settle(model: nn.Module) -> None:
    """Let go of what a pass without backward has left whole; the parameters are the cut ones again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def own_cut(tensor: Tensor) -> Tensor:
    """Return what this rank holds of a tensor; all of one that is not cut."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor as it would be on one rank; every rank must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def copy_into(target: Tensor, value: Tensor) -> None:
    """Overwrite a tensor, cut or not, with a whole one's content."""
    if not isinstance(target, DTensor):
        target.copy_(value)
        return
    # every rank has the whole tensor, so nothing is sent; the last ranks may hold less, or nothing
    cut = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
    target.to_local().copy_(cut.to_local())


def name_cuts(tensors: Mapping[str, Mapping[str, Tensor]], group: Group) -> dict[str, Mapping[str, Tensor]]:
    """Return the files of a checkpoint with this rank's number in the name of those that are cut."""
    if not group.shards:
        return dict(tensors)
    return {
        f"{part}-{group.rank:05d}" if part in SHARDED else part: content
        for part, content in tensors.items()
        if part in SHARDED or group.leads
    }


def join_cuts(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Mapping[str, Tensor]]:
    """Return the files of a checkpoint with cut ones put together, however many ranks wrote them; whole ones as they are."""
    joined: dict[str, Mapping[str, Tensor]] = {}
    for part in tensors:
        base, _, number = part.rpartition("-")
        if base not in SHARDED:
            joined[part] = tensors[part]
        elif int(number) == 0:
            cuts = [tensors[name] for name in sorted(tensors) if name.startswith(f"{base}-")]
            joined[base] = {
                name: torch.cat([cut[name] for cut in cuts]) if value.ndim else value
                for name, value in tensors[part].items()
            }
    return joined


def gather_weights(parameters: Mapping[str, nn.Parameter], group: Group) -> dict[str, Tensor]:
    """Return whole weights by name on rank 0, in its main memory; nothing on the others, which must ask too."""
    found = {}
    for name, parameter in parameters.items():
        value = whole(parameter.detach())
        if group.leads:
            found[name] = value.cpu()
    return found

"""Context parallelism: the ranks of a team hold the whole model and share the tokens of every row.

    a row of T tokens in 2 S chunks      rank r of S takes chunks r and 2 S - 1 - r
    below attention                      each token alone: norms, projections, feed-forward parts
    attention                            keys and values of the team gathered; each chunk's queries see those up to its end

As Llama 3 was trained (arXiv 2407.21783, section 3.3.2): gathering all keys is less clever than passing them round a ring, but
documents packed into one row need no more than a mask. With a chunk from the front and its mirror image from the back every
rank multiplies as many queries with keys as every other, (2 S + 1) / (4 S) of all pairs of its tokens with the row's.

Gathered keys and values have a gradient on every rank; the backward pass adds them up and gives each rank its own tokens'.
Hidden states go back to their places in a (B, T, D) of zeros, and a rank keeps the labels only that it predicts: those whose
predicting position it holds. So heads, objectives and counts need not know, and sums over all ranks are those of a step.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genai_core.config.training import TrainingConfig
from genai_core.errors import ConfigError
from genai_core.models.attention import NAME as PRODUCTS
from genai_core.models.attention import products_attention
from genai_core.models.backbone import RUN_DECODER, causal_model
from genai_core.models.encoders import is_encoder
from genai_core.objectives.base import IGNORE_INDEX, Batch
from genai_core.training.parallel import Group

NAME = "genai_context"


def check_context(config: TrainingConfig, size: int) -> None:
    """Raise ConfigError if the tokens of a training's rows cannot be shared by so many ranks."""
    if reason := config.why_not_shared(size):
        raise ConfigError(reason)


def share_tokens(model: Any, group: Group) -> None:
    """Let the ranks of each team share the tokens of every row from now on; `attend_alone` ends it.

    Args:
        model: a causal model, adapted or not, whole on every rank; its kernels are chosen already.
        group: the ranks, which have formed teams; it is told that gradients add up over all of them.

    Raises:
        ConfigError: the model is an encoder, or attends or counts positions in a way that a part of a row does not show.
    """
    inner, team = causal_model(model), group.team
    assert team is not None
    key = f"compute.context_parallel={team.world_size}"
    if is_encoder(inner):
        raise ConfigError(
            f"{key} shares rows of decoders, but the base is an encoder ({type(inner).__name__}). Set it to 1."
        )
    config = inner.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds or getattr(config, "sliding_window", None) is not None:
        raise ConfigError(
            f"{key} needs layers that see all of a document, but {type(inner).__name__} has a window of "
            f"{getattr(config, 'sliding_window', None)} tokens or layers of other kinds ({', '.join(sorted(kinds))}). Set it to 1."
        )
    rotation = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rotation in ("dynamic", "longrope"):
        raise ConfigError(
            f"{key}: {type(inner).__name__} turns positions by the length of what it is shown (rope_type={rotation!r}), and each "
            "rank is shown a part. Set it to 1."
        )
    _register(inner.config._attn_implementation, team)
    inner.set_attn_implementation(NAME)
    setattr(inner, RUN_DECODER, types.MethodType(_run_on_own(team), inner))
    group.sums = group
    group.shares_tokens = True


def attend_alone(model: Any) -> None:
    """Let the model attend to whole rows again, as it is published to."""
    inner = causal_model(model)
    if inner.config.get_text_config()._attn_implementation == NAME:
        inner.set_attn_implementation("sdpa")
        delattr(inner, RUN_DECODER)


def own_positions(tokens: int, team: Group) -> Tensor:
    """Return which tokens of a row a rank holds, (T / S,) in rising order: a chunk from the front, and one from the back.

    Raises:
        ConfigError: the tokens do not part evenly.
    """
    pieces = 2 * team.world_size
    if tokens % pieces:
        raise ConfigError(
            f"compute.context_parallel={team.world_size} parts a row into {pieces} chunks, but it has {tokens:,} tokens. "
            f"Set seq_len to a multiple of {pieces}."
        )
    chunks = torch.arange(tokens, device=team.device).view(pieces, -1)
    return chunks[[team.rank, pieces - 1 - team.rank]].flatten()


def own_labels(batch: Batch, group: Group) -> Batch:
    """Return a batch with the labels alone that this rank predicts, each from the position before it.

    Args:
        batch: labels (B, T).
        group: the ranks; if they do not share tokens, the batch is returned as it is.
    """
    if not group.shares_tokens or group.team is None:
        return batch
    labels = batch["labels"]
    ours = torch.zeros(labels.shape[1] + 1, dtype=torch.bool, device=labels.device)
    ours[own_positions(labels.shape[1], group.team) + 1] = True
    return {**batch, "labels": labels.masked_fill(~ours[:-1], IGNORE_INDEX)}


def see_own(position_ids: Tensor, own: Tensor) -> Tensor:
    """Return what own tokens see of the whole row, (B, T / S, T) bool: their document up to themselves.

    Args:
        position_ids: (B, T), restarting at 0 where a new document begins.
        own: (T / S,) places in the row.
    """
    begins = position_ids[:, 1:] != position_ids[:, :-1] + 1
    documents = torch.nn.functional.pad(begins.cumsum(dim=1), (1, 0))  # (B, T)
    places = torch.arange(position_ids.shape[1], device=position_ids.device)
    return (documents[:, own, None] == documents[:, None, :]) & (own[:, None] >= places)


def add_up_states(states: Callable[..., Tensor], team: Group) -> Callable[..., Tensor]:
    """Return what gives the hidden states of all ranks on each: for the probes, whose rows may be of any length.

    Args:
        states: (input_ids, position_ids, seen or None) -> (B, T, D) with zeros where the token is another rank's.
        team: the ranks.
    """

    def whole(input_ids: Tensor, position_ids: Tensor, seen: Tensor | None = None) -> Tensor:
        tokens = input_ids.shape[1]
        more = -tokens % (2 * team.world_size)  # a document of its own behind the others
        behind = torch.arange(more, device=position_ids.device).expand(len(position_ids), more)
        longer = torch.cat([input_ids, input_ids[:, :1].expand(-1, more)], dim=1)
        found = states(longer, torch.cat([position_ids, behind], dim=1), seen).clone()
        team.sum_([found])
        return found[:, :tokens]

    return whole


def _run_on_own(team: Group) -> Callable[..., Any]:
    def run_decoder(
        self: Any, *, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor | None, use_cache: bool
    ) -> Any:
        assert attention_mask is None, "only causal objectives share the tokens of a row"
        own = own_positions(input_ids.shape[1], team)
        out = self.get_decoder()(
            input_ids=input_ids[:, own],
            position_ids=position_ids[:, own],
            attention_mask=see_own(position_ids, own).unsqueeze(1),
            use_cache=use_cache,
        )
        states = out.last_hidden_state  # (B, T / S, D)
        out.last_hidden_state = states.new_zeros(*input_ids.shape, states.shape[-1]).index_copy(1, own, states)
        return out

    return run_decoder


def _register(before: str, team: Group) -> None:
    """Let transformers know the attention of this team; a process trains one model at a time."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    attend = products_attention if before == PRODUCTS else sdpa_attention_forward

    def attend_together(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **more: Any
    ) -> tuple[Tensor, None]:
        chunk, size = query.shape[2] // 2, team.world_size
        # (S, B, K, T / S, 2 D)
        whole = _Gathered.apply(torch.cat([key, value], dim=-1), team)  # type: ignore[no-untyped-call]
        fronts, backs = whole.split(chunk, dim=3)
        whole = torch.cat([*fronts, *backs.flip(0)], dim=2)  # (B, K, T, 2 D), in the order of the row
        key, value = whole.split([key.shape[-1], value.shape[-1]], dim=-1)
        parts = []
        for part, end in (
            (slice(0, chunk), (team.rank + 1) * chunk),
            (slice(chunk, 2 * chunk), (2 * size - team.rank) * chunk),
        ):
            seen = attention_mask[:, :, part, :end]
            out, _ = attend(module, query[:, :, part], key[:, :, :end], value[:, :, :end], seen, **more)
            parts.append(out)  # (B, T / 2 S, H, D)
        return torch.cat(parts, dim=1), None

    AttentionInterface.register(NAME, attend_together)
    AttentionMaskInterface.register(NAME, sdpa_mask)


class _Gathered(torch.autograd.Function):
    """A tensor of every rank, stacked; backward each rank's own slice of the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, team: Group) -> Tensor:
        ctx.team = team
        return team.stack(own)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        team: Group = ctx.team
        return team.sum_own(grad), None

"""Encoders with a masked-language-modelling head: the BERT family, as transformers has it.

Two things differ from a decoder. Between the final hidden states and the output embeddings stands a transform, and the
output embeddings have a bias:

    logits = W f(h) + c          f: dense -> activation -> layer norm (Devlin et al. 2019, arXiv 1810.04805, and its code)

and every family lays its parts out in another way. The table below says where `f` is and how a body wants its positions;
`models/probes.head_probe` checks it against the model's own logits, with the positions that the model makes itself, at the
start of every run. A family that is not in the table is refused.

    bert, electra     positions from 0, token types
    roberta family    positions from padding_idx + 1, one token type
    distilbert        positions from 0
    modernbert        rotary positions; most layers see a window only, which a mask of ours would undo if it did not say so
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from genai_core.errors import ModelError
from genai_core.models.encoder_names import MASKED_LM

Transform = Callable[[Any, Tensor], Tensor]
"""(model, (..., D) final hidden states) -> (..., E) what the output embeddings are multiplied with."""


def _bert(model: Any, hidden: Tensor) -> Tensor:
    out: Tensor = model.cls.predictions.transform(hidden)
    return out


def _roberta(model: Any, hidden: Tensor) -> Tensor:
    out: Tensor = model.lm_head.layer_norm(torch.nn.functional.gelu(model.lm_head.dense(hidden)))
    return out


def _distilbert(model: Any, hidden: Tensor) -> Tensor:
    out: Tensor = model.vocab_layer_norm(model.activation(model.vocab_transform(hidden)))
    return out


def _electra(model: Any, hidden: Tensor) -> Tensor:
    out: Tensor = model.generator_predictions(hidden)
    return out


def _modernbert(model: Any, hidden: Tensor) -> Tensor:
    out: Tensor = model.head(hidden)
    return out


TRANSFORMS: Mapping[str, Transform] = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "distilbert": _distilbert,
    "electra": _electra,
    "modernbert": _modernbert,
}
"""By `config.model_type`; those that `encoder_names` lists."""


def is_encoder(model: Any) -> bool:
    """Return whether a transformers model (without an adapter around it) is an encoder with a masked-LM head."""
    return type(model).__name__.endswith(MASKED_LM)


def check_encoder(model: Any) -> None:
    """Raise ModelError for an encoder whose head is not known here."""
    family = model.config.model_type
    if family not in TRANSFORMS:
        raise ModelError(
            f"{type(model).__name__}: where its head's parts are is not known for model_type={family!r}. "
            f"Use an encoder of one of these: {', '.join(TRANSFORMS)}."
        )


def encoder_states(
    model: Any, input_ids: Tensor, position_ids: Tensor, seen: Tensor, token_types: Tensor | None = None
) -> Tensor:
    """Return an encoder's final hidden states, (B, T, D), of packed rows.

    Args:
        model: with a masked-LM head.
        input_ids: (B, T).
        position_ids: (B, T), restarting at 0 where a new document begins.
        seen: (B, T, T) bool, True where the token of the second index is seen by that of the first.
        token_types: (B, T) 0 or 1, the first or the second text of a pair; None = all 0. A model without types ignores it.
    """
    body = model.base_model
    mask: Any = seen.unsqueeze(1)  # four dimensions: taken as it is
    more: dict[str, Any] = {}
    if model.config.model_type == "modernbert":
        mask = {"full_attention": mask, "sliding_attention": mask & _near(seen, model.config.sliding_window)}
    else:
        position_ids = position_ids + _first_position(body)
        types = getattr(body.embeddings, "token_type_embeddings", None)
        if types is not None:
            has_types = token_types is not None and types.num_embeddings > 1
            more["token_type_ids"] = token_types if has_types else torch.zeros_like(input_ids)
    out: Tensor = body(
        input_ids=input_ids, attention_mask=mask, position_ids=position_ids, return_dict=True, **more
    ).last_hidden_state
    return out


def positions_taken(model: Any) -> int | None:
    """Return the longest row that an encoder's table of positions holds, None where there is no table."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    return None if table is None else int(table.num_embeddings) - _first_position(model.base_model)


def transform_states(model: Any, hidden: Tensor) -> Tensor:
    """Return what an encoder multiplies its output embeddings with, (..., E), for its final hidden states (..., D)."""
    return TRANSFORMS[model.config.model_type](model, hidden)


def _first_position(body: Any) -> int:
    """Return the number of a text's first position: RoBERTa keeps those up to the padding's for padding."""
    padding = body.embeddings.position_embeddings.padding_idx
    return 0 if padding is None else int(padding) + 1


def _near(seen: Tensor, window: int) -> Tensor:
    """Return which tokens are at most `window` places apart, (T, T) bool."""
    places = torch.arange(seen.shape[-1], device=seen.device)
    return (places[:, None] - places[None]).abs() <= window

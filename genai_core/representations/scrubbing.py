"""Concept scrubbing: erase a concept at everything that reads the residual stream, in every layer of a transformer.

    decoder   x -> norm -> ERASE -> attention -> + -> norm -> ERASE -> feed-forward -> +       (pre-norm: Llama, GPT-2, NeoX)
    encoder   embeddings -> norm -> ERASE -> attention -> + -> norm -> ERASE -> feed-forward -> + -> norm -> ERASE  (BERT)

In a decoder the stream itself still carries the concept, so it is erased at each of its readers. An encoder's norms stand
in the stream. What the head reads (the final norm; an encoder's last norm) is left alone unless asked for.

An eraser is fitted on what its point sees once all points before it have been erased; fitted in one pass over the
unscrubbed model, later points would meet other distributions than those they were fitted on.

Belrose et al. 2023 (arXiv 2306.03819), section 6.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from genai_core.errors import ModelError
from genai_core.representations.erasers import Eraser

Erase = Callable[[Tensor], Tensor]
"""An eraser, or another map of the last dimension that stands at its place."""

READERS = (
    (
        r"(.+\.)?layers\.\d+\.(input_layernorm|post_attention_layernorm)",
        r"(.+\.)?(norm|final_layer_norm|final_layernorm)",
    ),
    (r"(.+\.)?h\.\d+\.(ln_1|ln_2)", r"(.+\.)?ln_f"),
    (
        r"(.+\.)?(embeddings\.LayerNorm|layer\.\d+\.(attention\.output|output)\.LayerNorm)",
        r"(.+\.)?layer\.{last}\.output\.LayerNorm",
    ),
)
"""Names of the norms that are read by attention or feed-forward, and of what the head reads; {last} is the last layer."""

SANDWICHED = "pre_feedforward_layernorm"
"""Where there is one, post_attention_layernorm stands before the residual addition and nothing reads it (Gemma 2)."""


def points_of(model: nn.Module, *, final: bool = False) -> list[str]:
    """Return the names of the modules after which a concept is erased, in the order in which a pass meets them.

    Args:
        model: a transformers decoder or encoder, with or without its head.
        final: also what the head reads.

    Raises:
        ModelError: its layers are of no known layout.
    """
    names = [name for name, _ in model.named_modules()]
    layers = model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr,operator]
    for readers, head in READERS:
        found = [name for name in names if re.fullmatch(readers, name)]
        if not found or any(name.endswith(SANDWICHED) for name in names):
            continue
        last = [name for name in names if re.fullmatch(head.replace("{last}", str(layers - 1)), name)][:1]
        inner = [name for name in found if name not in last]
        return [*inner, *last] if final else inner
    raise ModelError(
        f"The layers of a {type(model).__name__} are of no layout that can be scrubbed. Known are the pre-norm decoders with "
        "input_layernorm and post_attention_layernorm (Llama, Mistral, Qwen, NeoX), GPT-2 and BERT."
    )


@contextmanager
def scrubbed(model: nn.Module, erasers: Mapping[str, Erase]) -> Iterator[nn.Module]:
    """Erase after each named module as long as the context lasts; afterwards the model is what it was.

    Args:
        model: a transformers model.
        erasers: by module name; see `points_of`.

    Raises:
        ModelError: the model has no such module.
    """
    handles = attach(model, erasers)
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


def attach(model: nn.Module, erasers: Mapping[str, Erase]) -> list[Any]:
    """Erase after each named module from now on; return the hooks' handles. See `scrubbed`."""
    modules = dict(model.named_modules())
    if missing := [point for point in erasers if point not in modules]:
        raise ModelError(f"A {type(model).__name__} has no {missing[0]!r}: the erasers were fitted for another model.")
    reference = next(model.parameters())
    return [modules[point].register_forward_hook(_hook(erase, reference)) for point, erase in erasers.items()]


def observe(
    model: nn.Module, erasers: Mapping[str, Erase], points: Sequence[str], run: Callable[[], object]
) -> dict[str, Tensor]:
    """Return what each point passes on, (B, T, D), while the given points are erased, its own among them.

    Args:
        model: a transformers model.
        erasers: by module name.
        points: what is wanted, in the order of a pass; what comes after the last of them is not computed.
        run: calls the model, once.
    """
    seen: dict[str, Tensor] = {}
    modules = dict(model.named_modules())

    def keep(point: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            seen[point] = output.detach()
            if point == points[-1]:
                raise _SeenEnoughError

        return hook

    with scrubbed(model, erasers):
        handles = [
            modules[point].register_forward_hook(keep(point)) for point in points
        ]  # after erasing: sees its result
        try:
            with torch.no_grad():
                run()
        except _SeenEnoughError:
            pass
        finally:
            for handle in handles:
                handle.remove()
    return seen


class _SeenEnoughError(Exception):
    """Ends a pass at the last point that is wanted."""


def _hook(erase: Erase, reference: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    ready = erase.to(reference.device, reference.dtype) if isinstance(erase, Eraser) else erase

    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return ready(output)

    return hook

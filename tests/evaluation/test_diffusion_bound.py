"""The Monte Carlo bound of a real model's text against the sum over all mask sets."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "training"))
from small_run import VOCAB, small_model

from genai_core.evaluation.diffusion_bound import diffusion_bound
from genai_core.models.backbone import hidden_states

MASK = 1
TEXT = [5, 9, 3, 30, 9, 17]


@torch.no_grad()
def exact(model, offset: int) -> float:
    """Return the bound by enumeration: a set of m of n masked tokens has the weight (m - 1)! (n - m)! / n!."""
    n, total = len(TEXT) - 1, 0.0
    full = torch.ones(1, len(TEXT), len(TEXT), dtype=torch.bool)
    for m in range(1, n + 1):
        weight = math.factorial(m - 1) * math.factorial(n - m) / math.factorial(n)
        for masked in itertools.combinations(range(1, len(TEXT)), m):
            shown = torch.tensor([TEXT])
            shown[0, list(masked)] = MASK
            states = hidden_states(model, shown, torch.arange(len(TEXT))[None], full)[0]
            logits = states @ model.get_output_embeddings().weight.T
            logits[:, MASK] = -math.inf
            logps = logits.log_softmax(-1)
            total += weight * -sum(float(logps[at - offset, TEXT[at]]) for at in masked)
    return total


@pytest.mark.parametrize("offset", [0, 1])
def test_it_is_the_sum_over_all_mask_sets_within_its_error(offset) -> None:
    model = small_model()
    found = diffusion_bound(model, TEXT, MASK, offset=offset, samples=4000)
    expected = exact(model, offset)
    assert found.tokens == 5
    assert abs(found.nats - expected) < 4 * found.standard_error
    assert found.standard_error < 0.02 * expected
    assert abs(found.nats - exact(model, 1 - offset)) > 5 * found.standard_error, "the other place is another number"


def test_a_uniform_model_is_exact_and_more_samples_err_less() -> None:
    model = small_model()
    few, many = (diffusion_bound(model, TEXT, MASK, samples=count).standard_error for count in (16, 1024))
    assert many < few / 4
    model.get_output_embeddings().weight.data.zero_()
    found = diffusion_bound(model, TEXT, MASK, samples=4)
    assert found.nats == pytest.approx(5 * math.log(VOCAB - 1))
    assert found.standard_error == pytest.approx(0.0, abs=1e-9)


def test_what_cannot_be_bounded_is_refused() -> None:
    with pytest.raises(ValueError, match="two tokens and two samples, not 1 and 128"):
        diffusion_bound(small_model(), [3], MASK)
    with pytest.raises(ValueError, match="of 6 tokens at least the first and not all are given, not 6"):
        diffusion_bound(small_model(), TEXT, MASK, start=6)


@torch.no_grad()
def exact_blocks(model, size: int, start: int) -> float:
    """Return the bound of block diffusion by enumeration, each block behind its own clean beginning."""
    total = 0.0
    for begin in range(0, len(TEXT), size):
        upto = min(begin + size, len(TEXT))
        own = [at for at in range(begin, upto) if at >= start]
        block = torch.arange(upto) // size
        for m in range(1, len(own) + 1):
            weight = math.factorial(m - 1) * math.factorial(len(own) - m) / math.factorial(len(own))
            for masked in itertools.combinations(own, m):
                shown = torch.tensor([TEXT[:upto]])
                shown[0, list(masked)] = MASK
                seen = (block[:, None] >= block[None])[None]
                states = hidden_states(model, shown, torch.arange(upto)[None], seen)[0]
                logits = states @ model.get_output_embeddings().weight.T
                logits[:, MASK] = -math.inf
                total += weight * -sum(float(logits.log_softmax(-1)[at, TEXT[at]]) for at in masked)
    return total


@pytest.mark.parametrize(("size", "start"), [(1, 1), (2, 1), (3, 2), (6, 1), (6, 3)])
def test_of_block_diffusion_it_is_the_sum_over_blocks(size, start) -> None:
    model = small_model()
    found = diffusion_bound(model, TEXT, MASK, block_length=size, start=start, samples=1000)
    expected = exact_blocks(model, size, start)
    assert found.tokens == len(TEXT) - start
    assert abs(found.nats - expected) < 4 * found.standard_error + 1e-9
    if size == 1:
        assert found.standard_error < 1e-9, "the likelihood itself"
    if size == 6 and start == 1:
        whole = diffusion_bound(model, TEXT, MASK, samples=1000)
        assert abs(found.nats - whole.nats) < 4 * math.hypot(found.standard_error, whole.standard_error)

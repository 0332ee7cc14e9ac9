"""Probes find what is there; a linear one finds nothing that LEACE erased, another kind may."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from genai_core.representations.erasers import fit_leace
from genai_core.representations.moments import measure
from genai_core.representations.probing import PENALTIES, _fit, fit_probe, score_probe


def xor(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return features whose product of signs is the label, and of which a third is the label plainly."""
    source = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (n, 2), generator=source) * 2 - 1
    x = torch.randn(n, 8, generator=source, dtype=torch.float64)
    x[:, :2] = 3 * signs + 0.5 * x[:, :2]
    labels = (signs.prod(dim=1) > 0).long()
    x[:, 2] += 2 * labels
    return x, labels


def test_leace_takes_the_linear_part_and_only_it() -> None:
    x, labels = xor(2000, 0)
    fresh, others = xor(2000, 1)
    eraser = fit_leace(measure(x, one_hot(labels, 2)))
    linear, hidden = fit_probe(x, labels, 2), fit_probe(x, labels, 2, hidden=16)
    assert score_probe(linear, fresh, others, 2).right > 1500
    assert score_probe(hidden, fresh, others, 2).right > 1900
    linear, hidden = fit_probe(eraser(x), labels, 2), fit_probe(eraser(x), labels, 2, hidden=16)
    fitted = score_probe(linear, eraser(x), labels, 2)
    assert abs(fitted.bits) < 1e-8 and fitted.right == round(fitted.majority * 2000), "guaranteed"
    fresh_score = score_probe(linear, eraser(fresh), others, 2)
    assert abs(fresh_score.bits) < 0.01 and abs(fresh_score.right - 1000) < 100, "near, not guaranteed"
    assert score_probe(hidden, eraser(fresh), others, 2).right > 1900, "the guarantee ends here"


def test_a_score_counts_against_the_best_constant_guess() -> None:
    labels = torch.tensor([0] * 6 + [1] * 2)
    x = one_hot(labels, 2).double() * 10
    score = score_probe(fit_probe(x, labels, 2), x, labels, 2)
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert (score.right, score.n, score.majority) == (8, 8, 0.75)
    assert score.bits == pytest.approx(entropy, abs=0.3) and score.bits < entropy
    nothing = torch.zeros(8, 3)
    assert score_probe(fit_probe(nothing, labels, 2), nothing, labels, 2).bits == pytest.approx(0.0, abs=1e-9)


def test_units_do_not_matter_and_the_seed_does_what_it_says() -> None:
    x, labels = xor(300, 0)
    for hidden in (0, 8):
        first = fit_probe(x, labels, 2, hidden=hidden, seed=3)
        assert torch.allclose(
            fit_probe(x * 1000 + 5, labels, 2, hidden=hidden, seed=3)(x * 1000 + 5), first(x), atol=1e-3
        )
        assert torch.equal(fit_probe(x, labels, 2, hidden=hidden, seed=3)(x), first(x))


def test_few_texts_with_many_features_do_not_make_a_probe_too_sure() -> None:
    """200 texts of 300 features, one of which tells a little: a fixed weak penalty ends below the constant guess."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(1200, 300, generator=source, dtype=torch.float64)
    labels = (x[:, 0] + 0.5 * torch.randn(1200, generator=source, dtype=torch.float64) > 0).long()
    x[:, 0] *= 5
    near, far = x[:200], x[200:]
    weak = _fit(near, labels[:200], 2, 0, 0, PENALTIES[0])
    chosen = fit_probe(near, labels[:200], 2)
    scores = [score_probe(probe, far, labels[200:], 2).bits for probe in (weak, chosen)]
    assert scores[0] < -0.2 and scores[1] > scores[0] + 0.2

"""Streamed and merged moments are those of all observations at once, in whatever parts they came."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from genai_core.representations.moments import Moments, measure, merge, merge_tree, no_moments

FIELDS = ("mean_x", "mean_z", "xx", "xz", "zz")


def draw(n: int = 500, d: int = 7, k: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, k, (n,), generator=source)
    z = torch.nn.functional.one_hot(labels, k).double()
    x = (
        torch.randn(n, d, generator=source, dtype=torch.float64)
        + z @ torch.randn(k, d, generator=source).double()
        + 100
    )
    return x, z, torch.rand(n, generator=source, dtype=torch.float64) + 0.1


def same(a: Moments, b: Moments, tolerance: float = 1e-10) -> bool:
    return (
        a.n == b.n
        and abs(a.weight - b.weight) <= tolerance * b.weight
        and all(
            torch.allclose(getattr(a, name), getattr(b, name), rtol=tolerance, atol=tolerance * b.weight)
            for name in FIELDS
        )
    )


def test_they_are_numpys_covariances() -> None:
    x, z, weights = draw()
    found = measure(x, z, weights)
    expected = torch.cov(torch.cat([x, z], dim=1).T, correction=0, aweights=weights)
    assert torch.allclose(found.cov_xx, expected[:7, :7], atol=1e-12)
    assert torch.allclose(found.cov_xz, expected[:7, 7:], atol=1e-12)
    assert torch.allclose(found.cov_zz, expected[7:, 7:], atol=1e-12)


@pytest.mark.parametrize("sizes", [[500], [1] * 500, [250, 250], [3, 197, 0, 100, 200]])
def test_any_split_and_any_order_of_merging_gives_the_same(sizes: list[int]) -> None:
    x, z, weights = draw()
    whole = measure(x, z, weights)
    parts = [measure(*part) for part in zip(x.split(sizes), z.split(sizes), weights.split(sizes), strict=True)]
    assert same(merge_tree(parts), whole)
    assert same(merge_tree(parts[::-1]), whole)
    streamed = no_moments(7, 3)
    for part in parts:
        streamed = merge(streamed, part)
    assert same(streamed, whole)


def test_a_weight_is_a_repetition() -> None:
    x, z, _ = draw(50)
    times = torch.arange(50) % 4 + 1
    repeated = measure(x.repeat_interleave(times, 0), z.repeat_interleave(times, 0))
    weighted = measure(x, z, times)
    assert weighted.weight == repeated.weight and weighted.n == 50
    assert all(torch.allclose(getattr(weighted, name), getattr(repeated, name), atol=1e-9) for name in FIELDS)


def test_a_far_mean_costs_no_digits() -> None:
    """The sanity half: E[xx'] - mean mean' in float32 loses a thousandth of a unit variance at a mean of 100."""
    x, z, _ = draw(4000)
    exact = measure(x, z).cov_xx
    single = x.float()
    naive = (single.T @ single / len(single)) - torch.outer(single.mean(0), single.mean(0))
    assert float((naive - exact).abs().max()) > 1e-3
    assert float((measure(single, z).cov_xx - exact).abs().max()) < 1e-5, "float32 inputs, rounded once"


def test_json_keeps_every_bit() -> None:
    x, z, weights = draw(40)
    found = measure(x, z, weights)
    again = Moments.from_json(json.loads(json.dumps(found.to_json())))
    assert (again.n, again.weight) == (found.n, found.weight)
    assert all(torch.equal(getattr(again, name), getattr(found, name)) for name in FIELDS)


@pytest.mark.parametrize(
    ("x", "z", "weights"),
    [
        (torch.zeros(3, 2), torch.zeros(4, 2), None),
        (torch.zeros(3), torch.zeros(3, 2), None),
        (torch.zeros(3, 2), torch.zeros(3, 2), torch.ones(2)),
        (torch.full((3, 2), float("nan")), torch.zeros(3, 2), None),
        (torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3)),
    ],
)
def test_what_cannot_be_measured_is_refused(x: Tensor, z: Tensor, weights: Tensor | None) -> None:
    with pytest.raises(ValueError):
        measure(x, z, weights)


def test_nothing_has_no_moments() -> None:
    with pytest.raises(ValueError, match="no moments"):
        merge_tree([])

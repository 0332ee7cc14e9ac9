"""First and second moments of representations X and of a concept Z, in float64: streamed, merged, carried as JSON.

    w     = sum_i w_i                                 mean_x, mean_z    weighted means
    xx    = sum_i w_i (x_i - mean_x)(x_i - mean_x)'   xz, zz likewise

Two parts are merged by Chan's rule, with delta = mean_2 - mean_1:

    mean  = mean_1 + delta w_2 / w                    M = M_1 + M_2 + (w_1 w_2 / w) delta_x delta_z'

A batch is streamed by merging its own moments. Never E[xx'] - mean mean': with a mean of 100 and variance 1 that loses
three digits of a float32 (objectives.md 6.4). A worker measures its shard, and `merge_tree` joins the shards in a tree
that hangs on their order alone, so the number of workers cannot change a bit.

Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance".
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Moments:
    """What is known of X in R^d and Z in R^k; every tensor is float64 on the processor."""

    n: int
    """Observations."""

    weight: float
    """Sum of their weights."""

    mean_x: Tensor  # (d,)
    mean_z: Tensor  # (k,)
    xx: Tensor  # (d, d), symmetric
    xz: Tensor  # (d, k)
    zz: Tensor  # (k, k), symmetric
    rounding: float
    """Relative rounding of the representations as they came (float32: 1.2e-7); what varies by less does not vary."""

    @property
    def cov_xx(self) -> Tensor:
        """Covariance of X, (d, d). Divided by the weight: no eraser depends on the factor."""
        return self.xx / max(self.weight, 1e-300)

    @property
    def cov_xz(self) -> Tensor:
        """Cross-covariance of X and Z, (d, k)."""
        return self.xz / max(self.weight, 1e-300)

    @property
    def cov_zz(self) -> Tensor:
        """Covariance of Z, (k, k)."""
        return self.zz / max(self.weight, 1e-300)

    def to_json(self) -> dict[str, Any]:
        """Return the moments as a JSON value, exact to the bit; of symmetric matrices the upper triangle."""
        return {
            "n": self.n,
            "weight": self.weight,
            "rounding": self.rounding,
            "d": len(self.mean_x),
            "k": len(self.mean_z),
            "mean_x": encode_floats(self.mean_x),
            "mean_z": encode_floats(self.mean_z),
            "xx": encode_floats(_upper(self.xx)),
            "xz": encode_floats(self.xz),
            "zz": encode_floats(_upper(self.zz)),
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> Moments:
        """Return what `to_json` wrote."""
        d, k = value["d"], value["k"]
        return Moments(
            n=value["n"],
            weight=value["weight"],
            mean_x=decode_floats(value["mean_x"], d),
            mean_z=decode_floats(value["mean_z"], k),
            xx=_symmetric(value["xx"], d),
            xz=decode_floats(value["xz"], d, k),
            zz=_symmetric(value["zz"], k),
            rounding=value["rounding"],
        )


def no_moments(d: int, k: int) -> Moments:
    """Return the moments of nothing, which change nothing in a merge."""
    zeros = torch.zeros(max(d, k), max(d, k), dtype=torch.float64)
    return Moments(0, 0.0, zeros[0, :d], zeros[0, :k], zeros[:d, :d], zeros[:d, :k], zeros[:k, :k], 0.0)


def measure(x: Tensor, z: Tensor, weights: Tensor | None = None) -> Moments:
    """Return the moments of some observations.

    Args:
        x: (n, d) representations, of any floating type and on any device.
        z: (n, k) the concept; one-hot for classes, also for two (a single column of class numbers is another concept).
        weights: (n,) how much each observation counts, positive; None = 1 each.

    Raises:
        ValueError: the shapes do not belong together, or an entry is not finite.
    """
    if x.ndim != 2 or z.ndim != 2 or len(x) != len(z) or (weights is not None and weights.shape != x.shape[:1]):
        raise ValueError(f"x (n, d), z (n, k) and weights (n,) are wanted, not {tuple(x.shape)} and {tuple(z.shape)}")
    if not len(x):
        return no_moments(x.shape[1], z.shape[1])
    rounding = torch.finfo(x.dtype).eps
    x, z = x.detach().double().cpu(), z.detach().double().cpu()
    w = torch.ones(len(x), dtype=torch.float64) if weights is None else weights.detach().double().cpu()
    if not bool(torch.isfinite(x).all() & torch.isfinite(z).all() & (w > 0).all()):
        raise ValueError("every representation and label must be finite, and every weight positive")
    total = w.sum()
    mean_x, mean_z = w @ x / total, w @ z / total
    dx, dz = x - mean_x, z - mean_z
    weighted = dx * w[:, None]
    return Moments(
        n=len(x),
        weight=float(total),
        mean_x=mean_x,
        mean_z=mean_z,
        xx=_even(weighted.T @ dx),
        xz=weighted.T @ dz,
        zz=_even((dz.T * w) @ dz),
        rounding=rounding,
    )


def merge(first: Moments, second: Moments) -> Moments:
    """Return the moments of both together."""
    if not first.n or not second.n:
        return second if not first.n else first
    weight = first.weight + second.weight
    share = second.weight / weight
    dx, dz = second.mean_x - first.mean_x, second.mean_z - first.mean_z
    factor = first.weight * share
    return Moments(
        n=first.n + second.n,
        weight=weight,
        mean_x=first.mean_x + dx * share,
        mean_z=first.mean_z + dz * share,
        xx=first.xx + second.xx + factor * torch.outer(dx, dx),
        xz=first.xz + second.xz + factor * torch.outer(dx, dz),
        zz=first.zz + second.zz + factor * torch.outer(dz, dz),
        rounding=max(first.rounding, second.rounding),
    )


def merge_tree(parts: Sequence[Moments]) -> Moments:
    """Return the moments of all parts, neighbours first: rounding grows with the logarithm of their number.

    Raises:
        ValueError: there are no parts.
    """
    if not parts:
        raise ValueError("there are no moments to merge")
    level = list(parts)
    while len(level) > 1:
        pairs = [merge(*level[at : at + 2]) for at in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def encode_floats(values: Tensor) -> str:
    """Return the bytes of a tensor's float64 values as base64: JSON that loses nothing."""
    return base64.b64encode(values.detach().double().cpu().numpy().astype("<f8").tobytes()).decode()


def decode_floats(text: str, *shape: int) -> Tensor:
    """Return the float64 tensor of base64 bytes."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype="<f8").astype(np.float64)).reshape(*shape)


def _even(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


def _upper(matrix: Tensor) -> Tensor:
    rows, columns = torch.triu_indices(*matrix.shape)
    return matrix[rows, columns]


def _symmetric(text: str, size: int) -> Tensor:
    rows, columns = torch.triu_indices(size, size)
    found = torch.empty(size, size, dtype=torch.float64)
    values = decode_floats(text, len(rows))
    found[rows, columns] = values
    found[columns, rows] = values
    return found

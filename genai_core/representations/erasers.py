"""Erasers: maps of a representation after which no linear model can tell a concept from it, fitted from moments.

    LEACE        r(x)    = x - P (x - mean_x)         P = W+ U U' W     the least change that does it, in every norm
    orthogonal   r(x)    = x - P (x - mean_x)         P = U U'          U spans Cov(X, Z) itself: does it, at a higher price
    oracle       r(x, z) = x - Sxz Szz+ (z - mean_z)                    the label is known: an even smaller change
    random       r(x)    = x - P (x - mean_x)         P = U U'          U is random: the control of the same rank

W whitens X on its support (W Sxx W' = I, W+ its pseudo-inverse) and U are the left singular vectors of W Sxz Wz', with
Wz whitening Z. After LEACE Cov(r(X), Z) = (I - P) Sxz = 0, which is the same as: all classes have one mean; no affine
predictor of Z beats the best constant one, under any convex loss. That holds exactly on what was measured and for linear
models; it says nothing of others, and of other data only so far as they are alike.

Belrose et al. 2023 (arXiv 2306.03819), theorems 3.1, 4.2 and 4.3.

Choices that the paper leaves open:
- Z is whitened too, which changes nothing of P (it depends on the columns of Sxz only through what they span) and makes
  the singular values canonical correlations, in [0, 1]. So a tolerance on them means the same whatever the units of X and Z
  and however rare a class is; an absolute one on W Sxz leaves a class with a share of 5e-5 in (objectives.md 6.10).
- X and Z are scaled to variance 1 by column before they are whitened, which LEACE commutes with: what counts as no variance
  is then said of each feature by its own measure.
- No constraint on the trace: it can only fall (trace Cov(r(X)) = trace Sxx - trace U' Sxx U).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from genai_core.representations.moments import Moments

TOLERANCE = 1e-8
"""Canonical correlations up to this are rounding: by chance alone n observations have about n^-1/2."""

Z_CUT = 1e-10
"""Eigenvalues of Z's correlations up to this share of the largest are zero; one-hot labels always have one such."""

WORST_ROUNDING = 1e-10
"""Of variance, relative; half-precision states are rounded by more, which is then a variance like any other."""

CONSTANT = 1e-12
"""A deviation up to this share of the mean is rounding."""

DEAD = 1e-20
"""A deviation up to this share of the largest is that of a dead feature: a norm that has learned a weight of 1e-33."""


@dataclass(frozen=True, slots=True)
class Eraser:
    """x - left right (x - bias): a projection of rank r, kept as its factors."""

    left: Tensor  # (d, r)
    right: Tensor  # (r, d)
    bias: Tensor | None  # (d,); None: the linear map without it, which moves the mean
    correlations: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    """Canonical correlations of X and Z that were found, in falling order; the first `rank` were erased."""

    @property
    def rank(self) -> int:
        """Dimensions that are erased."""
        return self.left.shape[1]

    @property
    def projection(self) -> Tensor:
        """What is taken away, P, (d, d)."""
        return self.left @ self.right

    def __call__(self, x: Tensor) -> Tensor:
        """Return the erased representations, of the shape (..., d) and type of x. Half precision is widened meanwhile."""
        work = torch.promote_types(x.dtype, self.left.dtype)
        wide = x.to(work)
        centred = wide if self.bias is None else wide - self.bias.to(work)
        return (wide - (centred @ self.right.to(work).T) @ self.left.to(work).T).to(x.dtype)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Eraser:
        """Return the eraser on a device and in a type, for application; half precision becomes float32."""
        dtype = torch.promote_types(dtype, torch.float32)
        return Eraser(
            self.left.to(device, dtype),
            self.right.to(device, dtype),
            None if self.bias is None else self.bias.to(device, dtype),
            self.correlations,
        )


@dataclass(frozen=True, slots=True)
class OracleEraser:
    """x - coefficients (z - mean_z): what is left of x after regression on z."""

    coefficients: Tensor  # (d, k)
    mean_z: Tensor  # (k,)

    def __call__(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the erased representations, (n, d), given their labels (n, k)."""
        return (x.double() - (z.double() - self.mean_z) @ self.coefficients.T).to(x.dtype)


def fit_leace(
    moments: Moments, *, affine: bool = True, shrinkage: bool = False, tolerance: float = TOLERANCE
) -> Eraser:
    """Return the eraser that changes representations least.

    Args:
        moments: of the representations and their labels.
        affine: keep the mean; False leaves the bias out.
        shrinkage: pull the correlations of X towards none, as their number and n ask for. The concept is still gone from what
            was measured; the change is no longer the least there, but not fitted to so few observations either.
        tolerance: canonical correlations up to this are left in.
    """
    white, back = _whiten(moments.cov_xx, moments.mean_x, _x_cut(moments), moments.n if shrinkage else 0)
    concept, _ = _whiten(moments.cov_zz, moments.mean_z, Z_CUT)
    u, s, _ = torch.linalg.svd(white @ moments.cov_xz @ concept.T, full_matrices=False)
    kept = u[:, s > tolerance]
    return Eraser(back @ kept, kept.T @ white, moments.mean_x if affine else None, s)


def fit_orthogonal(moments: Moments, *, affine: bool = True, tolerance: float = TOLERANCE) -> Eraser:
    """Return the eraser that projects the span of Cov(X, Z) away; its tolerance is relative to X's largest deviation."""
    concept, _ = _whiten(moments.cov_zz, moments.mean_z, Z_CUT)
    u, s, _ = torch.linalg.svd(moments.cov_xz @ concept.T, full_matrices=False)
    largest = moments.cov_xx.diagonal().max().sqrt().clamp_min(1e-300)
    kept = u[:, s / largest > tolerance]
    return Eraser(kept, kept.T.clone(), moments.mean_x if affine else None, s / largest)


def fit_oracle(moments: Moments) -> OracleEraser:
    """Return the eraser that needs the label; of one-hot labels it moves every class's mean to the mean of all."""
    concept, _ = _whiten(moments.cov_zz, moments.mean_z, Z_CUT)
    return OracleEraser(moments.cov_xz @ concept.T @ concept, moments.mean_z)


def fit_random(moments: Moments, rank: int, seed: int) -> Eraser:
    """Return an eraser of `rank` random orthonormal directions: what erasing so many of them costs by itself."""
    d = len(moments.mean_x)
    draw = torch.randn(d, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u = torch.linalg.qr(draw).Q
    return Eraser(u, u.T.clone(), moments.mean_x)


def change(eraser: Eraser, moments: Moments) -> float:
    """Return E|r(X) - X|^2, the price of an eraser that keeps the mean: trace P Sxx P'."""
    projection = eraser.projection
    return float((projection @ moments.cov_xx @ projection.T).trace())


def residual_correlation(eraser: Eraser, moments: Moments) -> float:
    """Return the largest correlation, over features and labels, that is left between r(X) and Z; X's own deviations count.

    0 up to rounding is what linear guardedness means. Assert it rather than trust the fit.
    """
    left = moments.cov_xz - eraser.left @ (eraser.right @ moments.cov_xz)
    x, z = _deviations(moments.cov_xx, moments.mean_x), _deviations(moments.cov_zz, moments.mean_z)
    scale = x[:, None] * z[None, :]
    return float((left.abs() / scale.clamp_min(1e-300))[scale > 0].max()) if bool((scale > 0).any()) else 0.0


def shrink(covariance: Tensor, n: int) -> Tensor:
    """Return a S + b I, the linear shrinkage that is best in the Frobenius norm as d and n grow together.

    Bodnar, Gupta and Parolya 2014 (arXiv 1308.2608), equations 4.7 and 4.8, with the target trace(S)/d I.
    """
    d = len(covariance)
    mean = covariance.trace() / d
    spread = covariance.square().sum() - mean**2 * d  # |S - mean I|^2
    if not bool(spread > 0):
        return covariance
    kept = (1 - (mean * d) ** 2 / n / spread).clamp_min(0)  # below 0 it would be no covariance any more
    return kept * covariance + (1 - kept) * mean * torch.eye(d, dtype=covariance.dtype)


def _x_cut(moments: Moments) -> float:
    """Return which share of the largest eigenvalue is no variance of X: its rounding's, in each of d directions.

    A norm's output lies in a hyperplane. What a float32 seems to vary by across it is rounding, of a variance of about eps^2;
    whitened, it would count as much as any other direction, and be erased by factors of 1e7.
    """
    by_rounding = min(moments.rounding**2, WORST_ROUNDING)
    return len(moments.mean_x) * max(torch.finfo(torch.float64).eps, by_rounding)


def _whiten(covariance: Tensor, mean: Tensor, cut: float, shrunk_for: int = 0) -> tuple[Tensor, Tensor]:
    """Return W with W C W' = I on C's support, and its pseudo-inverse.

    Args:
        covariance: C, (d, d).
        mean: (d,), beside which a deviation may be rounding.
        cut: eigenvalues of the correlations up to this share of the largest are zero.
        shrunk_for: observations that the correlations are shrunk for; 0 = not at all.
    """
    deviation = _deviations(covariance, mean)
    scale = torch.where(deviation > 0, 1 / deviation.clamp_min(1e-300), 0.0)
    correlations = scale[:, None] * covariance * scale[None, :]
    if shrunk_for:
        correlations = shrink(correlations, shrunk_for)
    values, vectors = torch.linalg.eigh((correlations + correlations.T) / 2)
    kept = values > values[-1].clamp_min(0) * cut
    values, vectors = values[kept], vectors[:, kept]
    white = (vectors * values.rsqrt()) @ vectors.T * scale[None, :]
    back = deviation[:, None] * ((vectors * values.sqrt()) @ vectors.T)
    return white, back


def _deviations(covariance: Tensor, mean: Tensor) -> Tensor:
    """Return the standard deviation of each column, (d,); 0 for what is constant but for rounding, and for what is dead."""
    deviation = covariance.diagonal().clamp_min(0).sqrt()
    return torch.where((deviation > CONSTANT * mean.abs()) & (deviation > DEAD * deviation.max()), deviation, 0.0)

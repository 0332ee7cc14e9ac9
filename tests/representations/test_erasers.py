"""LEACE, orthogonal and oracle erasure: the identities of the paper, its optimality, and the tolerances that fail elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from genai_core.representations.erasers import (
    Eraser,
    change,
    fit_leace,
    fit_oracle,
    fit_orthogonal,
    fit_random,
    residual_correlation,
    shrink,
)
from genai_core.representations.moments import Moments, measure


def draw(n: int = 2048, d: int = 32, k: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return correlated features whose means hang on a class, and the classes one-hot."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, k, (n,), generator=source)
    mixing = torch.randn(d, d, generator=source, dtype=torch.float64)
    means = 2 * torch.randn(k, d, generator=source, dtype=torch.float64)
    x = torch.randn(n, d, generator=source, dtype=torch.float64) @ mixing + means[labels] + 3
    return x, one_hot(labels, k).double()


def covariance(x: Tensor, z: Tensor) -> Tensor:
    return measure(x, z).cov_xz


@pytest.mark.parametrize("k", [2, 3, 5, 10, 20])
@pytest.mark.parametrize("fit", [fit_leace, fit_orthogonal])
def test_nothing_linear_is_left_on_what_was_measured(k: int, fit: object) -> None:
    x, z = draw(d=64, k=k)
    moments = measure(x, z)
    eraser = fit(moments)  # type: ignore[operator]
    erased = eraser(x)
    assert float(covariance(x, z).abs().max()) > 0.01, "the effect is there before it is gone"
    assert float(covariance(erased, z).abs().max()) < 1e-10
    means = (z.T @ erased) / z.sum(0)[:, None]
    assert torch.allclose(means, erased.mean(0).expand_as(means), atol=1e-9)
    assert torch.allclose(erased.mean(0), x.mean(0), atol=1e-10), "the mean is kept"
    assert eraser.rank <= k - 1
    projection = eraser.projection
    assert torch.allclose(projection @ projection, projection, atol=1e-9)
    assert torch.allclose(projection @ moments.cov_xz, moments.cov_xz, atol=1e-10)
    assert residual_correlation(eraser, moments) < 1e-10
    assert torch.allclose(eraser(erased), erased, atol=1e-9)


def test_an_unpenalised_logistic_regression_finds_nothing() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, z = draw(d=16, k=3)
    erased = fit_leace(measure(x, z))(x)
    for features, found in ((x, True), (erased, False)):
        probe = linear_model.LogisticRegression(C=float("inf"), tol=1e-10, max_iter=2000)
        probe.fit((features - features.mean(0)).numpy(), z.argmax(1).numpy())
        assert (abs(probe.coef_).max() > 0.05) == found
        if not found:
            assert abs(probe.coef_).max() < 1e-6


def test_price_and_trace_have_closed_forms() -> None:
    x, z = draw()
    moments = measure(x, z)
    eraser = fit_leace(moments)
    price = float((eraser(x) - x).square().sum(1).mean())
    assert change(eraser, moments) == pytest.approx(price, rel=1e-10)
    values, vectors = torch.linalg.eigh(moments.cov_xx)
    white = vectors * values.rsqrt() @ vectors.T
    u, s, _ = torch.linalg.svd(white @ moments.cov_xz, full_matrices=False)
    u = u[:, s > 1e-9]
    assert price == pytest.approx(float((u.T @ moments.cov_xx @ u).trace()), rel=1e-10)
    after = measure(eraser(x), z).cov_xx.trace()
    assert float(after) == pytest.approx(float(moments.cov_xx.trace()) - price, rel=1e-10)


def test_no_other_projection_that_guards_is_cheaper() -> None:
    x, z = draw(d=12, k=4)
    moments = measure(x, z)
    eraser = fit_leace(moments)
    price, source = change(eraser, moments), torch.Generator().manual_seed(1)
    for number in range(50):
        noise = torch.randn(12, 12, generator=source, dtype=torch.float64) * 0.1 ** (number % 5)
        q = torch.linalg.qr(moments.cov_xz[:, :3]).Q
        other = eraser.projection + noise - noise @ q @ q.T
        assert torch.allclose(other @ moments.cov_xz, moments.cov_xz, atol=1e-9), "it guards too"
        assert float((other @ moments.cov_xx @ other.T).trace()) >= price - 1e-9


def test_oracle_is_cheaper_and_orthogonal_dearer() -> None:
    x, z = draw()
    moments = measure(x, z)
    oracle = fit_oracle(moments)
    erased = oracle(x, z)
    means = (z.T @ x) / z.sum(0)[:, None]
    assert torch.allclose(erased, x - z @ means + x.mean(0), atol=1e-10), "one-hot: the class mean becomes the mean"
    assert float(covariance(erased, z).abs().max()) < 1e-10
    prices = [
        float((erased - x).square().sum(1).mean()),
        change(fit_leace(moments), moments),
        change(fit_orthogonal(moments), moments),
    ]
    assert prices == sorted(prices) and prices[0] < 0.9 * prices[1] < 0.9 * prices[2]
    inverse = torch.linalg.pinv(moments.cov_zz, hermitian=True, rtol=1e-10)
    assert prices[0] == pytest.approx(float((moments.cov_xz @ inverse @ moments.cov_xz.T).trace()), rel=1e-9)


def test_only_what_the_labels_span_counts() -> None:
    x, z = draw(k=4)
    mixing = torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = fit_leace(measure(x, z)).projection
    assert torch.allclose(fit_leace(measure(x, z @ mixing)).projection, expected, atol=1e-10)


@pytest.mark.parametrize(("of_x", "of_z"), [(1000.0, 0.01), (1e-6, 1e6), (1.0, 1e-9)])
@pytest.mark.parametrize("fit", [fit_leace, fit_orthogonal])
def test_units_change_nothing(of_x: float, of_z: float, fit: object) -> None:
    x, z = draw()
    expected = fit(measure(x, z))  # type: ignore[operator]
    scaled = fit(measure(x * of_x, z * of_z))  # type: ignore[operator]
    assert scaled.rank == expected.rank
    assert torch.allclose(scaled.projection, expected.projection, atol=1e-9)
    assert torch.allclose(scaled.correlations, expected.correlations, atol=1e-9)


def test_each_feature_has_its_own_unit() -> None:
    """A feature of deviation 1e-9 beside one of 1: its variance is below the rounding of the others', and it is the label."""
    x, z = draw(d=8, k=2)
    x[:, 3] = 1e-9 * (z[:, 0] + 0.1 * torch.randn(len(z), generator=torch.Generator().manual_seed(0)).double())
    erased = fit_leace(measure(x, z))(x)
    before, after = (torch.corrcoef(torch.stack([each[:, 3], z[:, 0]]))[0, 1] for each in (x, erased))
    assert float(before) > 0.9 and abs(float(after)) < 1e-6


@pytest.mark.parametrize("shrinkage", [False, True])
@pytest.mark.parametrize("size", [1e-33, 1e-9, 0.0])
def test_a_dead_feature_breaks_nothing(size: float, shrinkage: bool) -> None:
    """The last norm of a real encoder has weights of 5e-33: its features there vary by 1e-33 of the others."""
    x, z = draw(k=2)
    expected = fit_leace(measure(x, z), shrinkage=shrinkage)
    x[:, 7] *= size
    moments = measure(x.float(), z)
    eraser = fit_leace(moments, shrinkage=shrinkage)
    assert residual_correlation(eraser, moments) < 1e-9
    assert float(eraser.right.abs().max()) < 1e12 * float(expected.right.abs().max())
    assert bool(torch.isfinite(eraser.to("cpu", torch.float32)(x.float())).all())


def test_a_rare_class_is_erased() -> None:
    """Three of 60,000: the singular value of W Sxz is about its share, below an absolute tolerance of 0.01."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(60_000, 6, generator=source, dtype=torch.float64)
    labels = torch.zeros(60_000, dtype=torch.long)
    labels[:3] = 1
    x[:3, 0] += 5
    z = one_hot(labels, 2).double()
    moments = measure(x, z)
    eraser = fit_leace(moments)
    assert eraser.rank == 1
    assert residual_correlation(eraser, moments) < 1e-10
    assert float(eraser(x)[:3, 0].mean()) == pytest.approx(float(x[:, 0].mean()), abs=1e-9)


def test_a_weak_concept_is_erased() -> None:
    """A correlation of about 1e-4: far below any tolerance that one would choose by eye."""
    x, z = draw(k=2)
    weak = x - z @ ((z.T @ x) / z.sum(0)[:, None])
    weak[:, 0] += 1e-4 * float(weak[:, 0].std()) * z[:, 0]
    moments = measure(weak, z)
    eraser = fit_leace(moments)
    assert eraser.rank == 1 and float(eraser.correlations[0]) < 1e-3
    assert residual_correlation(eraser, moments) < 1e-12


def test_what_is_not_there_is_not_erased() -> None:
    x, z = draw(k=3)
    unrelated = x - (z @ ((z.T @ x) / z.sum(0)[:, None]))
    assert fit_leace(measure(unrelated, z)).rank == 0
    assert fit_leace(measure(x, torch.ones(len(x), 1))).rank == 0, "one class only"
    erased = fit_leace(measure(unrelated, z))(unrelated)
    assert torch.equal(erased, unrelated)


@pytest.mark.parametrize("case", ["duplicate", "constant", "few", "nothing"])
def test_singular_covariances_are_no_trouble(case: str) -> None:
    x, z = draw(n=20 if case == "few" else 2048, d=32, k=3)
    if case == "duplicate":
        x[:, 5:10] = x[:, :5]
    if case == "constant":
        x[:, 7] = 1000.1
    if case == "nothing":
        x = torch.zeros_like(x)
    moments = measure(x, z)
    eraser = fit_leace(moments)
    assert bool(torch.isfinite(eraser(x)).all()) and eraser.rank == (0 if case == "nothing" else 2)
    assert residual_correlation(eraser, moments) < 1e-7
    if case == "constant":
        assert torch.allclose(eraser(x)[:, 7], x[:, 7], atol=1e-9)


def test_shrinkage_still_guards_and_changes_more() -> None:
    x, z = draw(n=100, d=64, k=3)
    moments = measure(x, z)
    exact, shrunk = fit_leace(moments), fit_leace(moments, shrinkage=True)
    assert residual_correlation(shrunk, moments) < 1e-9
    assert change(shrunk, moments) > change(exact, moments)
    fresh, labels = draw(n=100 + 4000, d=64, k=3)
    there = measure(fresh[100:], labels[100:])
    assert residual_correlation(shrunk, there) < residual_correlation(exact, there), "and it is better elsewhere"


def test_without_bias_it_guards_and_moves_the_mean() -> None:
    x, z = draw()
    linear = fit_leace(measure(x, z), affine=False)
    assert float(covariance(linear(x), z).abs().max()) < 1e-10
    assert float((linear(x).mean(0) - x.mean(0)).abs().max()) > 0.1
    assert torch.allclose(linear(torch.zeros(1, 32).double()), torch.zeros(1, 32).double())


def test_the_random_control_has_the_rank_and_leaves_the_concept() -> None:
    x, z = draw()
    moments = measure(x, z)
    control = fit_random(moments, fit_leace(moments).rank, seed=0)
    assert control.rank == 4
    assert torch.allclose(control.projection @ control.projection, control.projection, atol=1e-12)
    assert residual_correlation(control, moments) > 0.1
    assert not torch.equal(control.left, fit_random(moments, 4, seed=1).left)
    assert torch.equal(control.left, fit_random(moments, 4, seed=0).left)


def test_half_precision_is_widened_and_types_are_kept() -> None:
    x, z = draw()
    eraser = fit_leace(measure(x, z))
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.2)):
        given = x.to(dtype).reshape(64, 32, 32)
        found = eraser.to("cpu", dtype)(given)
        assert found.dtype == dtype and found.shape == given.shape
        assert torch.allclose(found.double(), eraser(given.double()), atol=tolerance)


def test_its_gradient_is_what_is_left_of_the_gradient() -> None:
    x, z = draw(n=300, d=6, k=2)
    eraser = fit_leace(measure(x, z))
    point = x[:4].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(eraser, (point,))
    gradient = torch.ones(4, 6, dtype=torch.float64)
    eraser(point).backward(gradient)
    assert torch.allclose(point.grad, gradient @ (torch.eye(6, dtype=torch.float64) - eraser.projection))


def package() -> object:
    return pytest.importorskip(
        "concept_erasure", reason="the parity extra is not installed: pip install concept-erasure"
    )


@pytest.mark.parametrize("k", [2, 3, 8])
@pytest.mark.parametrize("method", ["leace", "orth"])
@pytest.mark.parametrize("affine", [True, False])
def test_parity_with_concept_erasure(k: int, method: str, affine: bool) -> None:
    theirs = package()
    x, z = draw(k=k)
    moments = measure(x, z)
    fitter = theirs.LeaceFitter(32, k, method, affine=affine, shrinkage=False, svd_tol=1e-10, dtype=torch.float64)  # type: ignore[attr-defined]
    for part in range(4):
        fitter.update(x[part::4], z[part::4])
    fit = fit_leace if method == "leace" else fit_orthogonal
    ours: Eraser = fit(moments, affine=affine)
    eye = torch.eye(32, dtype=torch.float64)
    assert torch.allclose(eye - ours.projection, fitter.eraser.P, atol=1e-8)
    assert torch.allclose(ours(x), fitter.eraser(x), atol=1e-8)


@pytest.mark.parametrize("k", [2, 5])
def test_parity_of_oracle_and_shrinkage(k: int) -> None:
    theirs = package()
    x, z = draw(k=k)
    moments = measure(x, z)
    oracle = theirs.OracleEraser.fit(x, z[:, 1:], svd_tol=1e-10)  # type: ignore[attr-defined]
    assert torch.allclose(fit_oracle(moments)(x, z), oracle(x, z[:, 1:]), atol=1e-8), (
        "theirs without the dependent column"
    )
    from concept_erasure.shrinkage import optimal_linear_shrinkage

    for n in (2048, 100):
        assert torch.allclose(shrink(moments.cov_xx, n), optimal_linear_shrinkage(moments.cov_xx, n), atol=1e-8)
    shrunk = theirs.LeaceEraser.fit(x, z, svd_tol=1e-10)  # type: ignore[attr-defined]
    ours = fit_leace(
        moments, shrinkage=True
    )  # of correlations, not of covariances: guarded alike, not the same projection
    for eraser in (ours, shrunk):
        assert float(covariance(eraser(x), z).abs().max()) < 1e-10


def test_the_package_leaves_in_what_is_in_small_units() -> None:
    """The failure that whitening Z is for; should the package mend it, this says so."""
    theirs = package()
    x, z = draw(k=3)
    small = theirs.LeaceEraser.fit(x, z * 0.01, shrinkage=False)  # type: ignore[attr-defined]
    assert float(covariance(small(x), z).abs().max()) == pytest.approx(float(covariance(x, z).abs().max()))


def test_moments_are_all_it_needs() -> None:
    x, z = draw()
    moments = measure(x, z)
    again = Moments.from_json(moments.to_json())
    assert torch.equal(fit_leace(again).left, fit_leace(moments).left)

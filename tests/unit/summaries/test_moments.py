"""Moments, cross moments and kernel products against NumPy, scikit-learn and reference values."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from inscape.errors import DegenerateInputError, StoreMismatchError, TooFewStimuliError
from inscape.summaries.base import Need
from inscape.summaries.blocks import needs_double
from inscape.summaries.cross import CrossMoments
from inscape.summaries.moments import Moments
from inscape.summaries.products import GramProducts
from inscape.summaries.spectra import nuclear_norm

rng = np.random.default_rng(0)
TALL = rng.standard_normal((80, 6)) @ rng.standard_normal((6, 6)) + 3
WIDE = rng.standard_normal((12, 30)) + 3


def test_need_takes_named_options_of_the_measure() -> None:
    need = Need(metric="cosine", k="k", center=False)
    assert need.resolve({"k": 20}) == {"metric": "cosine", "k": 20, "center": False}
    assert need == Need(metric="cosine", k="k", center=False) and hash(need) == hash(Need(center=False, k="k", metric="cosine"))


@pytest.mark.parametrize("X", [TALL, WIDE], ids=["tall", "wide"])
def test_moments_are_those_of_numpy(X: np.ndarray) -> None:
    m = Moments.of(X)
    centered = X - X.mean(0)
    n, d = X.shape
    assert (m.n, m.d) == (n, d)
    assert m.dual == (n < d)
    singular = np.zeros(d)
    singular[: min(n, d)] = np.linalg.svd(centered, compute_uv=False)
    raw = np.zeros(d)
    raw[: min(n, d)] = np.linalg.svd(X, compute_uv=False)
    assert m.trace == pytest.approx((centered**2).sum(), rel=1e-12)
    assert m.fourth == pytest.approx(((centered**2).sum(1) ** 2).sum(), rel=1e-12)
    assert m.frobenius2 == pytest.approx(np.linalg.norm(centered.T @ centered) ** 2, rel=1e-12)
    np.testing.assert_allclose(m.singular_values, singular, atol=1e-7 * singular[0])
    np.testing.assert_allclose(m.eigenvalues, singular**2 / n, atol=1e-13 * singular[0] ** 2)
    np.testing.assert_allclose(m.raw_singular_values, raw, atol=1e-7 * raw[0])
    assert m.rank == np.linalg.matrix_rank(centered)
    assert m.dual == (n < d)  # nothing so far asked for the d×d side
    np.testing.assert_allclose(m.mean, X.mean(0), rtol=1e-12)
    np.testing.assert_allclose(m.covariance(1), np.cov(X.T), atol=1e-12)
    np.testing.assert_allclose(m.centered.third, (centered**2).sum(1) @ centered, atol=1e-9)
    assert not m.dual
    assert m.fourth == pytest.approx(((centered**2).sum(1) ** 2).sum(), rel=1e-12)
    assert m.nbytes >= 8 * d * d


def test_whitening_gives_unit_covariance_on_the_kept_directions() -> None:
    m = Moments.of(TALL)
    W = m.inverse_sqrt()
    np.testing.assert_allclose(W @ m.covariance() @ W, np.eye(6), atol=1e-10)
    flat = Moments.of(np.c_[TALL, TALL[:, 0]])  # rank 6 of 7
    W = flat.inverse_sqrt()
    assert torch.linalg.matrix_rank(W) == 6
    with pytest.raises(DegenerateInputError, match="no positive eigenvalue"):
        Moments.of(np.ones((5, 2))).inverse_sqrt()


def test_rank_deficient_rows_have_exact_zeros() -> None:
    low = rng.standard_normal((200, 5)) @ rng.standard_normal((5, 40))
    values = Moments.of(low).eigenvalues
    assert bool((values[5:] == 0).all()) and bool((values[:5] > 0).all())


def test_rotated_dominant_direction_keeps_its_tail_in_narrow_input() -> None:
    d = 64
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    scale = np.ones(d)
    scale[0] = 1e3  # a million times the variance: fp32 products would lose the tail
    X = torch.as_tensor(rng.standard_normal((2000, d)) * scale @ Q.T, dtype=torch.float32)
    truth = np.linalg.svd(X.double().numpy() - X.double().numpy().mean(0), compute_uv=False)
    assert needs_double(X) and not needs_double(X, used=1) and not needs_double(torch.randn(500, 8))
    assert needs_double(torch.randn(3, 8).double()) and not needs_double(torch.randn(1, 8))
    # Up to the last digit of the limit the answer is that of the eigenvalues, 100 rounding errors of fp32 apart.
    basis = torch.linalg.qr(torch.randn(200, 8, dtype=torch.float64)).Q
    basis = torch.linalg.qr(basis - basis.mean(0)).Q
    for share in (0.3, 0.9, 1.1, 3.0, 1e3):
        widths = torch.tensor([share * 100 * torch.finfo(torch.float32).eps, *[1.0] * 7], dtype=torch.float64).sqrt()
        assert needs_double((basis * widths).float()) == (share < 1)
    np.testing.assert_allclose(Moments.of(X).singular_values, truth, rtol=1e-5)
    assert abs(float(Moments.of(X, precise=False).singular_values[-1]) / truth[-1] - 1) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rows_are_exact_numbers(dtype: torch.dtype) -> None:
    X = torch.as_tensor(TALL, dtype=dtype)
    assert torch.allclose(Moments.of(X).scatter, Moments.of(X.double()).scatter, rtol=1e-5, atol=1e-3)


def test_the_rows_own_scatter_allows_fp32_and_a_pilot_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def pilot(rows: torch.Tensor) -> bool:
        asked.append(needs_double(rows))
        return asked[-1]

    monkeypatch.setattr("inscape.summaries.moments.needs_double", pilot)
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(400, 6, generator=generator)
    for spread, pilots in ((1.0, []), (1e-2, [False]), (1e-4, [True])):  # of the least direction: variances 1, 1e-4 and 1e-8
        asked.clear()
        rows = X * torch.tensor([1, 1, 1, 1, 1, spread]) + 1000
        exact = np.linalg.eigvalsh(np.cov(rows.double().numpy().T, ddof=0))
        assert Moments.of(rows).eigenvalues.flip(0).numpy() == pytest.approx(exact, rel=1e-3 if pilots == [False] else 1e-4)
        assert asked == pilots


def test_given_shift_and_streaming_give_the_same_sums() -> None:
    m = Moments(shift=torch.full((6,), 1 / 3, dtype=torch.float64)).update(TALL[:10].astype(np.float32)).update(TALL[10:])
    assert float(m.shift[0]) == 1 / 3
    mixed = np.r_[TALL[:10].astype(np.float32).astype(float), TALL[10:]]
    np.testing.assert_allclose(m.scatter, Moments.of(mixed).scatter, rtol=1e-6)
    assert m.merge(Moments()) is m and Moments().merge(m) is m and m.minus(Moments()) is m


def test_moments_say_what_is_wrong() -> None:
    with pytest.raises(DegenerateInputError, match=r"holds 1 NaN or infinite values, the first at row 2, unit 1"):
        Moments.of(np.array([[1.0, 2], [3, 4], [5, np.nan]]))
    with pytest.raises(DegenerateInputError, match="hold no rows yet"):
        Moments().scatter
    with pytest.raises(StoreMismatchError, match="of 6 and of 30 units cannot be combined"):
        Moments.of(TALL).merge(Moments.of(WIDE))
    with pytest.raises(StoreMismatchError, match=r"of 6 units, the new rows have shape \(12, 30\)"):
        Moments.of(TALL).update(WIDE)
    with pytest.raises(DegenerateInputError, match=r"weights have shape \(3,\); expected \[80\]"):
        Moments.of(TALL, weights=[1, 2, 3])
    with pytest.raises(DegenerateInputError, match="nonnegative numbers; the smallest is -1"):
        Moments.of(TALL, weights=-np.ones(80))
    with pytest.raises(DegenerateInputError, match="n = 80, the whole n = 10"):
        Moments.of(TALL[:10]).minus(Moments.of(TALL))
    with pytest.raises(DegenerateInputError, match="needs more than 1 rows, got n = 1"):
        Moments.of(TALL[:1]).covariance(1)


def test_constant_rows_have_no_spectrum() -> None:
    m = Moments.of(np.full((9, 3), 7.0))
    assert m.trace == 0 and m.rank == 0 and float(m.eigenvalues.sum()) == 0
    assert float(m.raw_singular_values[0]) == pytest.approx(7 * 27**0.5)


def test_cross_scatter_and_nuclear_norm() -> None:
    Y = TALL[:, :4] ** 2
    pair = CrossMoments.of(TALL, Y)
    M = (TALL - TALL.mean(0)).T @ (Y - Y.mean(0))
    np.testing.assert_allclose(pair.cross, M, atol=1e-10 * np.abs(M).max())
    assert pair.nuclear_norm == pytest.approx(np.linalg.norm(M, "nuc"), rel=1e-12)
    assert nuclear_norm(torch.diag(torch.tensor([3.0, -4.0]))) == pytest.approx(7)
    np.testing.assert_allclose(pair.swap().cross, M.T, atol=1e-10 * np.abs(M).max())
    assert pair.swap().products() == pair.products().swap()


def test_shared_moments_are_not_computed_again() -> None:
    Y = TALL[:, :4] ** 2
    x, y = Moments.of(TALL), Moments.of(Y)
    pair = CrossMoments.of(TALL, Y, x=x, y=y)
    assert pair.x is x and pair.y is y
    np.testing.assert_allclose(pair.cross, CrossMoments.of(TALL, Y).cross, rtol=1e-12)
    with pytest.raises(StoreMismatchError, match="give the moments of these rows"):
        CrossMoments.of(TALL, Y, x=y, y=x)


def song(K: np.ndarray, L: np.ndarray) -> float:
    """The U-statistic of Song et al. 2012, straight from the definition."""
    n = len(K)
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    one = np.ones(n)
    term = np.trace(K @ L) + (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ K @ L @ one)
    return float(term / (n * (n - 3)))


ROUTES: dict[str, Callable[[Any, Any], GramProducts]] = {
    "moments": lambda X, Y: CrossMoments.of(X, Y).products(),
    "scatters": lambda X, Y: GramProducts.from_scatters(torch.as_tensor(X), torch.as_tensor(Y)),
    "tiles": lambda X, Y: GramProducts.from_tiles(torch.as_tensor(X), torch.as_tensor(Y)),
    "chosen": GramProducts.of,
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_hsic_by_every_route(route: str, offset: float, compare_inputs: ModuleType, reference: Callable[[str], Any]) -> None:
    values = reference("compare")["values"]
    for name in ("pair", "wide"):
        X, Y = getattr(compare_inputs, name)()
        products = ROUTES[route](X + offset, Y + offset)
        n = len(X)
        H = np.eye(n) - 1 / n
        K, L = X @ X.T, Y @ Y.T
        xy, xx, yy = products.hsic_biased()
        assert xy == pytest.approx(np.trace(K @ H @ L @ H) / (n - 1) ** 2, rel=1e-9)
        assert xy / (xx * yy) ** 0.5 == pytest.approx(values[f"resi/cka/{name}"]["value"], abs=1e-9)
        xy, xx, yy = products.hsic_unbiased()
        assert (xy, xx, yy) == pytest.approx((song(K, L), song(K, K), song(L, L)), rel=1e-8)
        assert xy / (xx * yy) ** 0.5 == pytest.approx(1 - values[f"anatome/lincka_dist_debiased/{name}"]["value"], abs=1e-8)


def test_tiles_smaller_than_the_kernel_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inscape.arrays.BLOCK_BYTES", 1)  # blocks fall to 256 rows
    X, Y = rng.standard_normal((600, 3)), rng.standard_normal((600, 2))
    tiles, scatters = GramProducts.from_tiles(torch.as_tensor(X), torch.as_tensor(Y)), CrossMoments.of(X, Y).products()
    assert list(vars(tiles).values()) == pytest.approx(list(vars(scatters).values()), rel=1e-10)


def test_hsic_needs_rows_that_pair() -> None:
    with pytest.raises(TooFewStimuliError, match="at least 4 paired rows, got n = 3"):
        GramProducts.of(TALL[:3], TALL[:3]).hsic_unbiased()
    with pytest.raises(TooFewStimuliError, match="at least 2 paired rows, got n = 1"):
        GramProducts.of(TALL[:1], TALL[:1]).hsic_biased()
    with pytest.raises(StoreMismatchError, match="X has 80 rows, Y has 12"):
        GramProducts.of(TALL, WIDE)
    with pytest.raises(StoreMismatchError, match="row i of both must be the same stimulus"):
        CrossMoments.of(TALL, WIDE)
    with pytest.raises(DegenerateInputError, match="hold no rows yet"):
        CrossMoments().cross

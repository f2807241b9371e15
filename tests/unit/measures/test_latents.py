"""Latent variables: posteriors, gaps of modalities, maps of units, and dynamics of maps, against values by hand and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import torch

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeWarning, StoreMismatchError, TooFewStimuliError
from inscape.summaries.posteriors import Posteriors

M = ix.measures


def posteriors(seed: int = 0, n: int = 200) -> np.ndarray:
    """Four variables: one in use, one in use for half the inputs, two that are the prior."""
    rng = np.random.default_rng(seed)
    mean, log_variance = np.zeros((n, 4)), np.zeros((n, 4))
    mean[:, 0], log_variance[:, 0] = rng.standard_normal(n), -3
    half = rng.permutation(n) < n // 2
    mean[half, 1], log_variance[half, 1] = rng.standard_normal(half.sum()) + 1, -2
    mean[:, 2] = 1e-3 * mean[:, 0]  # passive, and following the first
    return np.concatenate([mean, log_variance], 1)


# -- posteriors --------------------------------------------------------------------------------------------------------------------


def test_divergence_equals_torch() -> None:
    X = torch.from_numpy(posteriors())
    normal, prior = torch.distributions.Normal(X[:, :4], (X[:, 4:] / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(normal, prior)
    found = M.posterior_kl(X)
    assert found.values == pytest.approx(expected.mean(0).tolist(), abs=1e-12)
    assert found.value == pytest.approx(float(expected.sum(1).mean()), abs=1e-12)


def test_kinds_of_variables_by_construction() -> None:
    X = posteriors()
    assert M.active_units(X[:, :4]).values == (1, 1, 0, 0)
    assert float(M.passive_units(X)) == 2
    assert float(M.mixed_units(X)) == 1
    assert M.mixed_units(X).values[1] == pytest.approx(0.5, abs=0.02)


def test_active_units_counts_variances_of_numpy() -> None:
    X = np.random.default_rng(0).standard_normal((50, 8)) * np.geomspace(0.01, 1, 8)
    for threshold in (0.001, 0.01, 0.5):
        assert float(M.active_units(X, threshold=threshold)) == (X.var(0, ddof=1) > threshold).sum()
    with pytest.raises(DegenerateInputError, match="active_units.*threshold=-1 is a variance"):
        M.active_units(X, threshold=-1)


def test_gap_of_means_and_samples_equals_many_draws() -> None:
    X = posteriors(n=400)
    rng = np.random.default_rng(1)
    many = np.repeat(X, 500, 0)
    sample = many[:, :3] + np.exp(many[:, 4:7] / 2) * rng.standard_normal((len(many), 3))

    def mean_correlation(Z: np.ndarray) -> float:
        return float(np.abs(np.corrcoef(Z.T)[np.triu_indices(Z.shape[1], 1)]).mean())

    # The last variable's mean never changes: it has no correlation and is left out.
    assert M.mean_sampled_gap(X) == pytest.approx(mean_correlation(X[:, :3]) - mean_correlation(sample), abs=4e-3)
    assert M.mean_sampled_gap(X) > 0.3


def test_posteriors_merge_and_subtract() -> None:
    X = posteriors()
    whole, part = Posteriors.of(X), Posteriors.of(X[50:])
    for other in (Posteriors.of(X[:50]).merge(part), Posteriors().merge(whole)):
        assert torch.allclose(other.divergence, whole.divergence, atol=1e-12) and other.n == 200
        assert torch.equal(other.closed, whole.closed)
    rest = whole.minus(part)
    assert torch.allclose(rest.variance, Posteriors.of(X[:50]).variance) and torch.allclose(
        rest.means.mean, Posteriors.of(X[:50]).means.mean
    )
    with pytest.raises(StoreMismatchError, match="posteriors of 4 and of 1 variables"):
        whole.merge(Posteriors.of(np.zeros((3, 2))))


def test_posteriors_refuse_what_is_none() -> None:
    with pytest.raises(DegenerateInputError, match=r"posterior_kl: posteriors have shape \(2, 3\); expected \[n, 2m\]"):
        M.posterior_kl(np.zeros((2, 3)))
    with pytest.raises(DegenerateInputError, match="posterior_kl: logarithms of variances reach 1e"):
        M.posterior_kl(np.full((2, 2), 1e4))


# -- modalities --------------------------------------------------------------------------------------------------------------------


def test_modality_gap_by_numpy() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((40, 5)) + 1, rng.standard_normal((30, 5))
    centers = [(Z / np.linalg.norm(Z, axis=1, keepdims=True)).mean(0) for Z in (X, Y)]
    assert M.modality_gap(X, Y) == pytest.approx(np.linalg.norm(centers[0] - centers[1]), abs=1e-12)
    row = ix.compare(X, Y, "modality_gap", interval=8).rows()[0]
    assert row["low"] < row["value"] < row["high"]
    with pytest.raises(StoreMismatchError, match="modality_gap: X has 5 units, Y has 4"):
        M.modality_gap(X, Y[:, :4])
    with pytest.warns(InscapeWarning, match="modality_gap: 1 zero rows have no direction"):
        M.modality_gap(np.concatenate([X, np.zeros((1, 5))]), Y)
    with pytest.raises(TooFewStimuliError, match="modality_gap needs at least 1 rows, got 0"):
        M.modality_gap(np.zeros((2, 5)), Y)


# -- maps of units -----------------------------------------------------------------------------------------------------------------


def grid(side: int) -> np.ndarray:
    return np.stack(np.divmod(np.arange(side * side), side), 1)


def test_checkerboards_and_halves_by_hand() -> None:
    places = grid(4)
    board = places.sum(1) % 2
    assert M.moran_i(board[None] * 1.0, places, radius=1.2) == pytest.approx(-1, abs=1e-12)
    # With the eight around: 24 pairs side by side differ, 18 on diagonals agree.
    assert M.moran_i(board[None] * 1.0, places) == pytest.approx((18 - 24) / 42, abs=1e-12)
    # Left half 1, right half 0: of 42 pairs 10 cross the middle (4 side by side, 6 on diagonals).
    assert M.moran_i((places[:, 1] < 2)[None] * 1.0, places) == pytest.approx((32 - 10) / 42, abs=1e-12)


def test_moran_by_the_matrix_of_weights() -> None:
    rng = np.random.default_rng(0)
    places, X = rng.random((30, 2)), rng.standard_normal((5, 30))
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    W = (apart <= 1.5 * np.median(apart.min(1))).astype(float)
    Z = X - X.mean(1, keepdims=True)
    expected = np.mean([30 / W.sum() * (z @ W @ z) / (z @ z) for z in Z])
    assert M.moran_i(X, places) == pytest.approx(expected, abs=1e-12)
    random = np.mean([M.moran_i(rng.standard_normal((1, 30)), places) for _ in range(400)])
    assert random == pytest.approx(-1 / 29, abs=0.03)


def test_places_come_from_the_unit_table() -> None:
    X = np.random.default_rng(0).standard_normal((3, 16))
    places = grid(4)
    store = ix.Store.from_arrays({"v1": X, "v2": X}, units={"v1": pa.table({"x": places[:, 0], "y": places[:, 1]})})
    assert M.moran_i(store["v1"]) == M.moran_i(X, places)
    result = ix.measure(store, "moran_i", interval=None)
    assert result.value(site="v1") == pytest.approx(M.moran_i(X, places), abs=1e-12)
    assert "has no positions of units; store a unit table with columns x, y" in result.where(site="v2").rows()[0]["reason"]
    with pytest.raises(TypeError, match=r"moran_i\(X, positions\) needs the positions of the units"):
        M.moran_i(X)


def test_maps_refuse_places_that_are_none() -> None:
    X = np.random.default_rng(0).standard_normal((2, 4))
    with pytest.raises(StoreMismatchError, match=r"moran_i: positions have shape \(3, 1\) for 4 units"):
        M.moran_i(X, np.arange(3))
    with pytest.raises(DegenerateInputError, match="share their place"):
        M.moran_i(X, np.zeros(4))
    with pytest.raises(DegenerateInputError, match="1 of 4 units have no finite position"):
        M.moran_i(X, [0, 1, 2, math.nan])
    with pytest.raises(DegenerateInputError, match="radius=0 must be positive"):
        M.moran_i(X, np.arange(4), radius=0)
    with pytest.warns(InscapeWarning, match="moran_i: 1 of 3 maps are flat"):
        M.moran_i(np.concatenate([X, np.ones((1, 4))]), np.arange(4))


# -- dynamics ----------------------------------------------------------------------------------------------------------------------


def test_attractors_of_a_map_by_hand() -> None:
    # z ← tanh(2z) rests at ±0.9575…, the roots of z = tanh(2z), with slope 2 (1 − z²); 0 repels.
    root = 0.9575040240772687
    starts = np.array([[-2.0], [-0.1], [0.3], [5], [1]])
    field = M.latent_vector_field(starts, lambda z: (2 * z).tanh())
    assert field.value == 2
    assert field.attractors[:, 0].tolist() == pytest.approx([root, -root], abs=1e-5)
    assert field.basin.tolist() == [1, 1, 0, 0, 0]
    assert field.values == pytest.approx((0.6, 0.4))
    assert field.radius == pytest.approx([2 * (1 - root**2)] * 2, abs=1e-4)
    assert field.residual.tolist() == pytest.approx(np.abs(np.tanh(2 * starts) - starts)[:, 0], abs=1e-12)
    assert field.times[:4] == (0, 1, 2, 4)
    assert torch.equal(field.trajectories[0], torch.from_numpy(starts))
    assert field.trajectories[1, :, 0].tolist() == pytest.approx(np.tanh(2 * starts)[:, 0], abs=1e-12)
    assert "2 attractors from 5 starts" in repr(field)


@pytest.mark.parametrize("d", [5, 300])
def test_radius_is_that_of_the_matrix_of_a_linear_map(d: int) -> None:
    A = np.random.default_rng(0).standard_normal((d, d))
    A *= 0.7 / np.abs(np.linalg.eigvals(A)).max()
    starts = np.random.default_rng(1).standard_normal((4, d))
    field = M.latent_vector_field(starts, lambda z: z @ torch.from_numpy(A).T.to(z) + 1)
    assert field.value == 1
    assert field.attractors[0].numpy() == pytest.approx(np.linalg.solve(np.eye(d) - A, np.ones(d)), abs=1e-3)
    assert field.radius[0] == pytest.approx(0.7, abs=1e-6)
    outside = M.latent_vector_field(starts, lambda z: z.numpy() @ A.T + 1)  # no gradients: differences
    assert outside.radius[0] == pytest.approx(0.7, abs=1e-4)


def test_what_never_rests_and_what_runs_away_has_no_attractor() -> None:
    turn = torch.tensor([[0.0, -1], [1, 0]], dtype=torch.float64)
    field = M.latent_vector_field(np.array([[1.0, 0], [0, 2]]), lambda z: z @ turn, most=50)
    assert field.value == 0 and field.basin.tolist() == [-1, -1] and field.radius == ()
    assert "2 starts come to no rest" in repr(field)
    field = M.latent_vector_field(np.array([[0.5], [2.0]]), lambda z: z**3)
    assert field.value == 1 and field.basin.tolist() == [0, -1]


def test_maps_that_fail_say_why() -> None:
    starts = np.ones((3, 2))
    with pytest.raises(DegenerateInputError, match=r"latent_vector_field: the map takes rows \(1, 2\) to \(1, 1\)"):
        M.latent_vector_field(starts, lambda z: z[:, :1])
    with pytest.raises(DegenerateInputError, match="the map fails on rows of shape .* torch.float64.*give starts in the dtype"):
        M.latent_vector_field(starts, lambda z: z @ torch.ones(2, 2))
    with pytest.raises(DegenerateInputError, match="the map is of type int"):
        M.latent_vector_field(starts, 3)
    with pytest.raises(DegenerateInputError, match="most=0"):
        M.latent_vector_field(starts, lambda z: z, most=0)
    with pytest.raises(TypeError, match=r"latent_vector_field\(X, map\) needs a function"):
        M.latent_vector_field(starts)
    reason = ix.measure(starts, "latent_vector_field").rows()[0]["reason"]
    assert "call the measure as a function with X, map" in reason


def test_a_module_runs_in_its_own_dtype() -> None:
    module = torch.nn.Linear(2, 2)
    with torch.no_grad():
        module.weight.copy_(0.5 * torch.eye(2))
        module.bias.fill_(1.0)
    field = M.latent_vector_field(np.array([[1.0, 2], [3, 4]]), module)
    assert field.attractors.dtype == torch.float32
    assert field.attractors[0].tolist() == pytest.approx([2, 2], abs=1e-4)
    assert field.radius == pytest.approx([0.5], abs=1e-6)


# -- the last token ----------------------------------------------------------------------------------------------------------------


def mean_so_far(Z: torch.Tensor) -> torch.Tensor:
    """Attention that weighs all earlier tokens alike."""
    return Z.cumsum(0) / torch.arange(1, len(Z) + 1, device=Z.device)[:, None]


def test_sensitivity_of_the_last_token_by_hand() -> None:
    X = np.array([[1.0], [2], [3], [6]])  # mean 3, which token 2 equals
    with pytest.warns(InscapeWarning, match="1 of 3 tokens equal the mean token"):
        one = M.oversquashing(X, mean_so_far)
    assert one.at == (0, 1)
    assert one.sensitivity == pytest.approx((1 / 4, 1 / 4), abs=1e-12)
    assert one.values == pytest.approx((0.5 / 6.5, 0.25 / 6.25), abs=1e-12)  # the mean 3 becomes 3.5, or 3.25
    with pytest.warns(InscapeWarning):
        two = M.oversquashing(X, lambda Z: mean_so_far(mean_so_far(Z)))
    # Token j reaches the last one through every token k ≥ j: Σ_k 1 / (4 k), so the first is heard best.
    assert two.sensitivity == pytest.approx(((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, (1 / 2 + 1 / 3 + 1 / 4) / 4), abs=1e-12)
    assert (one.value, one.lost_bfloat16, one.lost_float32) == (0.0, (), ())


def test_tokens_are_lost_where_rounding_is_larger_than_their_change() -> None:
    # The mean of 256 tokens is 1 + 2⁻⁹, which bfloat16 (steps of 2⁻⁷ there) rounds to 1: an error of 2⁻⁹. A token that is 1 away from the
    # mean changes it by 2⁻⁸, one that is 1/4 away by 2⁻¹⁰.
    away = np.tile([1.0, 0.25, -1.0, -0.25], 64)
    X = (1 + 2.0**-9 + away)[:, None]
    found = M.oversquashing(X, mean_so_far, most=255)
    assert found.lost_bfloat16 == tuple(range(1, 255, 2))
    assert found.value == pytest.approx(127 / 255, abs=1e-12)
    assert found.lost_float32 == ()  # 1 + 2⁻⁹ is exact in float32
    assert "all but 127 in bfloat16" in repr(found)
    few = M.oversquashing(X, mean_so_far, most=3)
    assert few.at == (0, 127, 254)


def test_a_repeated_token_by_hand() -> None:
    found = M.representational_collapse(np.array([[1.0], [2], [3], [6]]), mean_so_far)
    # 1 and 1; 3/2 and 5/3; 3 and 18/5
    assert found.at == (1, 2, 4)
    assert found.values == pytest.approx((0, 1 / 19, 1 / 11), abs=1e-12)
    assert found.value == pytest.approx(1 / 11, abs=1e-12)
    # n ones and a zero: 1 / (n + 1) against 1 / (n + 2) of ones missing, apart by 1 / (n + 1)(n + 2) as in theorem 4.2.
    ones = np.ones((2048, 1))
    ones[-1] = 0
    at = M.representational_collapse(ones, mean_so_far)
    mean = 2047 / 2048
    assert at.value == pytest.approx((mean / 2049) / (mean + 2047 / 2049), rel=1e-9)
    assert at.lost_bfloat16[0] == 1 and 2048 in at.lost_bfloat16 and at.lost_float32 == at.lost_bfloat16[:-1]


def test_a_model_in_bfloat16_loses_tokens_that_change_not_a_bit() -> None:
    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, Z: torch.Tensor) -> torch.Tensor:
            return (self.scale * mean_so_far(Z.float())).to(Z.dtype)

    X = np.linspace(0, 4, 512)[:, None]
    wide, narrow = M.oversquashing(X, Mean(), most=32), M.oversquashing(X, Mean().bfloat16(), most=32)
    assert wide.lost_float32 == () and len(narrow.lost_bfloat16) > 10
    assert narrow.value == len(narrow.lost_bfloat16) / 32


def test_maps_of_tokens_that_fail_say_why() -> None:
    X = np.array([[1.0], [2], [6]])
    with pytest.raises(DegenerateInputError, match="most = 0: at least one token"):
        M.oversquashing(X, mean_so_far, most=0)
    with pytest.raises(DegenerateInputError, match="all 2 tokens before the last equal the mean of all 3"):
        M.oversquashing(np.array([[1.0, 0], [1.0, 0], [1.0, 1e-300]]), mean_so_far)
    with pytest.raises(DegenerateInputError, match="representational_collapse: the image of the last of 4 tokens"):
        M.representational_collapse(X, lambda Z: Z if len(Z) < 4 else Z / 0)

"""Dimensions and curvatures against definitions, surfaces of known shape, and graphs whose curvature is known."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.spatial.distance import cdist

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeWarning, TooFewStimuliError


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((90, 6))


def nearest_distances(X: np.ndarray, k: int) -> np.ndarray:
    return np.sort(cdist(X, X), axis=1)[:, 1 : k + 1]


def test_likelihoods_from_all_distances(rows: np.ndarray) -> None:
    r = nearest_distances(rows, 32)
    assert ix.measures.two_nn_ml(rows) == pytest.approx(89 / np.log(r[:, 1] / r[:, 0]).sum(), rel=1e-9)
    each = 1 / np.log(r[:, 9:10] / r[:, :9]).mean(1)
    assert ix.measures.mle_dimension_mean(rows, k=10) == pytest.approx(each.mean(), rel=1e-9)
    curve = ix.measures.mle_dimension_curve(rows, k=20)
    assert curve.at == (2, 5, 10, 20)
    assert curve.values == pytest.approx([ix.measures.mle_dimension(rows, k=k) for k in curve.at], rel=1e-9)
    assert curve.value == curve.values[-1]


def test_gride_is_the_root_of_its_likelihood(rows: np.ndarray) -> None:
    r = nearest_distances(rows, 32)
    curve = ix.measures.gride(rows)
    assert curve.at == (1, 2, 4, 8, 16)
    assert curve.axis == "scale"
    for scale, value in zip(curve.at, curve.values, strict=True):
        mu = r[:, 2 * scale - 1] / r[:, scale - 1]

        def score(d: float, mu: np.ndarray = mu, s: int = scale) -> float:
            return 89 / d - ((2 * s - 1) * np.log(mu)).sum() + ((s - 1) * np.log(mu) / (1 - mu**-d)).sum()

        assert value == pytest.approx(brentq(score, 0.1, 100, xtol=1e-13), rel=1e-9)
    assert curve.value == pytest.approx(ix.measures.two_nn_ml(rows), rel=1e-12)
    assert ix.measures.gride(rows, reach=5).at == (1, 2)


def test_a_dimension_that_depends_on_the_scale_is_flagged_beside_the_number() -> None:
    rng = np.random.default_rng(0)
    cube = np.concatenate([rng.random((1600, 5)), np.zeros((1600, 123))], 1)
    noisy = cube + 0.01 * rng.standard_normal(cube.shape)
    asked = ["two_nn", "mle_dimension"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clean = ix.measure(cube, asked, interval=8)
    with pytest.warns(InscapeWarning) as caught:
        result = ix.measure(noisy, asked, interval=8)
    assert any("gride: the dimension depends on the scale, from " in str(warning.message) for warning in caught)
    for name in (*asked, "gride", "mle_dimension_curve"):
        assert clean.where(measure=name, at=None).rows()[0]["reason"] is None
        assert "the dimension depends on the scale" in result.where(measure=name, at=None).rows()[0]["reason"]
    places = [row for row in clean.where(measure="gride").rows() if row["at"] is not None]
    assert [row["at"] for row in places] == [1, 2, 4, 8, 16]
    assert all(row["low"] < row["value"] < row["high"] and row["interval_method"] == "jackknife(8)" for row in places)


def test_a_curve_that_was_not_asked_for_never_adds_a_failure(rows: np.ndarray) -> None:
    result = ix.measure(rows[:20], "two_nn", interval=None)
    assert result.unique("measure") == ["two_nn"]
    assert ix.measure(rows[:20], ["two_nn", "gride"], interval=None).where(measure="gride").column("status") == ["too_few"]


def test_lpca_counts_eigenvalues() -> None:
    scales = np.array([1, 0.9, 0.3, 0.2, 0.1])  # variances .04 and .01 of the largest lie below a share of .05
    X = np.linalg.qr(np.random.default_rng(0).standard_normal((60, 6)) - 0)[0][:, 1:]
    X = np.linalg.qr(X - X.mean(0))[0] * scales
    assert ix.measures.lpca_dimension(X) == 3
    assert ix.measures.lpca_dimension(X, share=0.5) == 2
    with pytest.raises(DegenerateInputError, match="share = 1: a share of the largest variance"):
        ix.measures.lpca_dimension(X, share=1)


def test_local_dimension_from_every_neighborhood(rows: np.ndarray) -> None:
    order = np.argsort(cdist(rows, rows), axis=1)[:, 1:13]
    ratios = []
    for near in rows[order]:
        values = np.linalg.eigvalsh(np.cov(near.T))
        ratios.append(values.sum() ** 2 / (values**2).sum())
    assert ix.measures.local_dimension(rows, k=12) == pytest.approx(np.mean(ratios), rel=1e-9)
    far = np.argsort(np.sort(cdist(rows, rows), axis=1)[:, 12], kind="stable")  # few centers: even quantiles of the k-th distance
    few = far[np.linspace(0, len(rows) - 1, 5).round().astype(int)]
    assert ix.measures.local_dimension(rows, k=12, centers=5) == pytest.approx(np.mean(np.array(ratios)[few]), rel=1e-9)


def sphere(n: int, radius: float, seed: int = 0) -> np.ndarray:
    X = np.random.default_rng(seed).standard_normal((n, 3))
    return radius * X / np.linalg.norm(X, axis=1, keepdims=True)


def rotated(X: np.ndarray, d: int, seed: int = 1) -> np.ndarray:
    return X @ np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0][: X.shape[1]]


@pytest.mark.parametrize("radius", [0.2, 1.0, 30.0])
def test_curvature_of_a_sphere_is_one_over_its_radius(radius: float) -> None:
    X = rotated(sphere(3000, radius), 10)
    value = ix.measures.manifold_curvature(X, k=24, dimension=2)
    size = math.sqrt(((X - X.mean(0)) ** 2).sum(1).mean())
    assert value / size == pytest.approx(1 / radius, rel=0.02)  # the size is the radius, so the value itself is 1
    assert ix.measures.manifold_curvature(X, k=24) == value  # the dimension is found


def test_curvature_of_flat_and_of_rolled_sheets() -> None:
    rng = np.random.default_rng(0)
    plane = rotated(rng.random((1000, 2)), 8)
    assert ix.measures.manifold_curvature(plane, dimension=2) == pytest.approx(0, abs=1e-6)
    angle, height = 2 * np.pi * rng.random(4000), 4 * rng.random(4000)
    tube = np.stack([0.5 * np.cos(angle), 0.5 * np.sin(angle), height], 1)  # curvatures 2 and 0
    size = math.sqrt(((tube - tube.mean(0)) ** 2).sum(1).mean())
    assert ix.measures.manifold_curvature(tube, k=20, dimension=2) / size == pytest.approx(1, rel=0.1)
    with pytest.warns(InscapeWarning, match="9 dimensions have 54 terms for 32 neighbors"):
        ix.measures.manifold_curvature(rng.standard_normal((300, 12)), dimension=9)


def test_regression_dimension_is_features_over_targets() -> None:
    rng = np.random.default_rng(0)
    Y = rng.random((400, 5))
    X = Y[:, :2] @ rng.standard_normal((2, 7))
    r, t = nearest_distances(X, 2), nearest_distances(Y, 2)
    expected = np.log(t[:, 1] / t[:, 0]).sum() / np.log(r[:, 1] / r[:, 0]).sum()
    assert ix.measures.regression_dimension(X, Y) == pytest.approx(expected, rel=1e-9)
    assert expected < 0.6


def test_ricci_curvature_of_complete_graphs_and_rings() -> None:
    rng = np.random.default_rng(0)
    for n in (10, 13):  # everybody is everybody's neighbor: mass .5 against .5 / (n - 1) moves one step
        curve = ix.measures.ollivier_ricci(rng.standard_normal((n, 3)), k=n - 1)
        assert curve.values == pytest.approx([0.5 * n / (n - 1)] * 7, abs=1e-9)
    angle = 2 * np.pi * np.arange(30) / 30
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    assert ix.measures.ollivier_ricci(ring, k=2).values == pytest.approx([0] * 7, abs=1e-9)
    with pytest.raises(DegenerateInputError, match="idleness = 1: the mass that stays at a row"):
        ix.measures.ollivier_ricci(ring, k=2, idleness=1)


def test_ricci_communities_find_clusters() -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((72, 4))
    apart = one + np.repeat([[0.0], [9], [-9]], [30, 24, 18], axis=0)
    curve = ix.measures.ricci_communities(apart)
    assert curve.value == 3
    assert curve.values == pytest.approx([30 / 72, 24 / 72, 18 / 72], abs=1e-12)
    assert ix.measures.ricci_communities(one).value == 1
    assert ix.measures.ricci_communities(np.concatenate([apart, apart[:5]]), landmarks=77).values == curve.values  # copies count once
    with pytest.raises(TooFewStimuliError, match="9 landmarks are distinct; at least 10 are needed"):
        ix.measures.ricci_communities(one[:9].repeat(2, 0))


NEIGHBOR_MEASURES = {
    "two_nn": {},
    "two_nn_ml": {},
    "two_nn_curve": {},
    "gride": {},
    "mle_dimension": {},
    "mle_dimension_mean": {},
    "mle_dimension_curve": {},
    "local_dimension": {},
    "manifold_curvature": {"centers": 500},
    "ollivier_ricci": {"edges": 10**6},
}


@pytest.mark.parametrize("turned", [False, True], ids=["one coordinate", "rotated"])
@pytest.mark.parametrize("name", NEIGHBOR_MEASURES)
def test_a_large_offset_in_fp32_changes_nothing(name: str, turned: bool) -> None:
    rng = np.random.default_rng(0)
    n = 60 if name == "ollivier_ricci" else 500
    X = rotated(rng.standard_normal((n, 5)), 48) + 0.1 * rng.standard_normal((n, 48))
    moved = X + 1000.0 * (np.arange(48) == 3)
    moved = rotated(moved, 48) if turned else moved
    measure = ix.measures.get(name).with_options(**NEIGHBOR_MEASURES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InscapeWarning)
        before, after = float(measure(X.astype(np.float32))), float(measure(moved.astype(np.float32)))
    assert abs(after - before) < 1e-4 * max(1, abs(before))

"""Comparisons of dissimilarity matrices against rsatoolbox 0.3.2 and against arithmetic, on the seeded inputs of compare_inputs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

import inscape as ix
from inscape.errors import DegenerateInputError
from inscape.measures.trsa import geodesic, geotopological
from inscape.summaries import RDM

_spec = importlib.util.spec_from_file_location("compare_inputs", Path(__file__).with_name("compare_inputs.py"))
assert _spec is not None and _spec.loader is not None
inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inputs)

DATA, MODELS = inputs.rdm_family()
PEERS: dict[str, Any] = {k: v["value"] for k, v in json.loads(Path(__file__).with_name("compare.json").read_text())["values"].items()}


def one(values: np.ndarray, n: int = 15) -> RDM:
    return RDM(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)), n, "squared_euclidean")


@pytest.mark.parametrize(
    "peer,name",
    [
        ("cosine", "rsa_cosine"),
        ("corr", "rsa_corr"),
        ("spearman", "rsa_spearman"),
        ("rho-a", "rsa_rho_a"),
        ("tau-a", "rsa_tau_a"),
        ("cosine_cov", "rsa_cosine_whitened"),
        ("corr_cov", "rsa_corr_whitened"),
        ("bures", "rsa_bures"),
    ],
)
def test_comparators_equal_rsatoolbox(peer: str, name: str) -> None:
    measure = ix.measures.get(name)
    for m in range(4):
        for s in range(2):
            value = measure.evaluate(x=one(MODELS[m]), y=one(DATA[s]))
            assert value == pytest.approx(PEERS[f"rsatoolbox/compare/{peer}/rdm_family"][m][s], abs=1e-8)


@pytest.mark.parametrize("peer,name", [("rho-a", "rsa_rho_a"), ("tau-a", "rsa_tau_a")])
def test_ties_are_counted_as_rsatoolbox_counts_them(peer: str, name: str) -> None:
    for tied, expected in zip(inputs.tied(MODELS), PEERS[f"rsatoolbox/compare/{peer}/tied_models"], strict=True):
        assert ix.measures.get(name).evaluate(x=one(tied), y=one(DATA[0])) == pytest.approx(expected, abs=1e-8)


def test_tau_a_equals_counting_all_pairs() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 66).astype(float), rng.standard_normal(66)
    signs = np.sign(a[:, None] - a) * np.sign(b[:, None] - b)
    assert ix.measures.rsa_tau_a.evaluate(x=one(a, 12), y=one(b, 12)) == pytest.approx(signs.sum() / (66 * 65), abs=1e-12)
    continuous = rng.standard_normal(66)
    assert ix.measures.rsa_tau_a.evaluate(x=one(continuous, 12), y=one(b, 12)) == pytest.approx(
        scipy.stats.kendalltau(continuous, b).statistic, abs=1e-12
    )


def test_rho_a_is_spearman_averaged_over_ways_to_break_ties() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 3, 45).astype(float), rng.standard_normal(45)
    broken = [scipy.stats.spearmanr(a + 1e-6 * rng.standard_normal(45), b).statistic for _ in range(4000)]
    assert ix.measures.rsa_rho_a.evaluate(x=one(a, 10), y=one(b, 10)) == pytest.approx(np.mean(broken), abs=4 * np.std(broken) / 4000**0.5)


def test_whitened_cosine_is_the_explicit_inverse_covariance_and_linear_cka() -> None:
    X, Y = inputs.pair()
    contrasts = np.array([np.eye(12)[i] - np.eye(12)[j] for i in range(12) for j in range(i + 1, 12)])
    V = np.linalg.inv((contrasts @ contrasts.T) ** 2)
    d, e = (RDM.of(rows[:12], "squared_euclidean").values.numpy() for rows in (X, Y))
    expected = d @ V @ e / np.sqrt((d @ V @ d) * (e @ V @ e))
    assert ix.measures.rsa_cosine_whitened(X[:12], Y[:12]) == pytest.approx(expected, abs=1e-10)
    assert ix.measures.rsa_cosine_whitened(X, Y) == pytest.approx(ix.measures.linear_cka(X, Y), abs=1e-10)


def test_bures_is_the_cosine_of_the_procrustes_angle() -> None:
    X, Y = inputs.pair()
    assert ix.measures.rsa_bures(X, Y) == pytest.approx(np.cos(ix.measures.procrustes(X, Y)), abs=1e-7)


@pytest.mark.parametrize("low,high", [(0.0, 1.0), (0.1, 0.6), (0.25, 0.75)])
def test_geotopological_entries_equal_rsatoolbox(low: float, high: float) -> None:
    values = torch.from_numpy(DATA[0])
    ours = geotopological(values, tuple(np.quantile(DATA[:1], [low, high]).tolist())).numpy()
    lowest, highest = np.quantile(DATA[0], [low, high])
    expected = np.clip((DATA[0] - lowest) / (highest - lowest), 0, 1)
    assert np.abs(ours - expected).max() < 1e-12


def test_geodesic_entries_are_shortest_paths() -> None:
    # On the line 0, 1, 2, 4: the longest step (0 to 4) is dropped, and min-max lengths are (d - 1) / 3.
    values = torch.tensor([1.0, 2.0, 4.0, 1.0, 3.0, 2.0], dtype=torch.float64)
    paths = geodesic(values, 4, (1.0, 4.0)).numpy()
    assert paths == pytest.approx(np.array([0, 0, 1 / 3, 0, 1 / 3, 1 / 3]), abs=1e-12)


def test_trsa_at_the_ends_is_the_plain_correlation_and_its_curve_covers_the_grid() -> None:
    X, Y = inputs.pair()
    curve = ix.measures.trsa(X, Y, low=0.0, high=1.0)
    assert float(curve) == pytest.approx(ix.measures.rsa_corr(X, Y), abs=1e-12)
    assert len(curve.values) == 15
    assert curve.values[curve.at.index("0–1")] == pytest.approx(float(curve), abs=1e-12)


def test_imd_of_a_ring_and_a_complete_graph_is_by_hand() -> None:
    # Eight points on a circle with 2 neighbors each: eigenvalues 1 - cos(2 pi j / 8). With 7 neighbors each: 0 once, 8/7 seven times.
    angle = 2 * np.pi * np.arange(8) / 8
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    t = np.logspace(-1, 1, 256)
    traces = [np.exp(-t[:, None] * spectrum).mean(1) for spectrum in (1 - np.cos(angle), np.array([0.0] + [8 / 7] * 7))]
    expected = (np.exp(-2 * (t + 1 / t)) * np.abs(traces[0] - traces[1])).max()
    from inscape.summaries import Neighbors

    graphs = [Neighbors.of(ring, k=k) for k in (2, 7)]
    assert ix.measures.imd.evaluate(x=graphs[0], y=graphs[1]) == pytest.approx(expected, abs=1e-12)


def test_rtd_equals_the_authors_code() -> None:
    X, Y = inputs.pair(n=60)
    curve = ix.measures.rtd(X, Y)
    assert float(curve) == pytest.approx(PEERS["rtd/h1_symmetric/pair_n60"], abs=1e-7)  # their loops are float32
    assert curve.values == (float(curve),)
    with pytest.raises(DegenerateInputError, match="batches=0"):
        ix.measures.rtd(X, Y, batches=0)


def test_rtd_ignores_scale_and_needs_one() -> None:
    square = np.array([[0.0, 0], [0, 1], [1, 1], [1, 0]])
    assert float(ix.measures.rtd(square, 2 * square + 3)) == pytest.approx(0, abs=1e-9)
    with pytest.raises(DegenerateInputError, match="nine in ten distances"):
        ix.measures.rtd(np.r_[np.zeros((40, 2)), np.ones((1, 2))], np.random.default_rng(0).standard_normal((41, 2)))


def test_rtd_of_batches_is_that_of_their_rows() -> None:
    X, Y = inputs.pair()
    rng = np.random.default_rng(5)
    rows = [np.sort(rng.permutation(len(X))[:30]) for _ in range(2)]
    curve = ix.measures.rtd(X, Y, batch=30, batches=2, seed=5)
    assert curve.values == pytest.approx([float(ix.measures.rtd(X[one], Y[one])) for one in rows], abs=1e-9)


def test_ricci_difference_equals_graph_ricci_curvature() -> None:
    X, Y = inputs.pair(n=60)
    expected = PEERS["ricci/knn6_alpha0.5_OTD/pair_n60"]
    assert ix.measures.ricci_difference(X, Y, k=6, edges=10**6) == pytest.approx(expected[4], abs=1e-8)
    for rows, mean in ((X, expected[0]), (Y, expected[2])):
        assert float(ix.measures.ollivier_ricci(rows, k=6, edges=10**6)) == pytest.approx(mean, abs=1e-8)
    with pytest.raises(DegenerateInputError, match="idleness = 1"):
        ix.measures.ricci_difference(X, Y, idleness=1)
    with pytest.raises(DegenerateInputError, match="edges = 0"):
        ix.measures.ricci_difference(X, Y, edges=0)

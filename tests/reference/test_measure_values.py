"""Measures of one system against other libraries and against the definitions, on the same seeded inputs."""

from __future__ import annotations

import functools
import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.weight_spectra import tail_fit
from inscape.summaries import Moments, Neighbors

_spec = importlib.util.spec_from_file_location("measure_inputs", Path(__file__).with_name("measure_inputs.py"))
assert _spec is not None and _spec.loader is not None
inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inputs)

RESULTS: dict[str, Any] = json.loads(Path(__file__).with_name("measure.json").read_text())["results"]

SPECTRA = {
    "rankme_centred": "effective_rank",
    "erank_lambda_centred": "effective_rank_covariance",
    "rankme_eps1e-7_raw": "rankme",
    "participation_ratio_centred": "participation_ratio",
    "lPCA_participation_ratio": "participation_ratio",
    "stable_rank_centred": "stable_rank",
    "isoscore": "isoscore",
    "alpha_11_100_centred": "alpha_req",
    "numerical_rank_centred": "numerical_rank",
}

MANIFOLDS = ["cube_d2", "cube_d5", "cube_d10", "cube_d20", "sphere_d10", "swissroll_d2", "cube_d5_noise1e-2"]


def agrees(value: float, peer: float, tolerance: float = 1e-8) -> bool:
    return abs(value - peer) <= tolerance * max(1.0, abs(peer))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
def test_spectral_measures(alpha: float) -> None:
    X = inputs.powerlaw(alpha)
    peers = RESULTS["spectra"][f"alpha{alpha}_n2000_d256"]
    moments = Moments.of(X)
    for key, name in SPECTRA.items():
        assert agrees(ix.measures.get(name).evaluate(moments=moments), peers[key]["value"]), (name, key)
    plain = ix.measures.get("rankme").with_options(eps=0.0)
    assert agrees(plain.evaluate(moments=moments), peers["rankme_raw"]["value"])
    assert agrees(ix.measures.mean_cosine(X), peers["mean_cosine"]["value"])
    assert agrees(ix.measures.von_neumann_entropy(X), peers["vne"]["value"])
    assert agrees(ix.measures.uniformity(X), peers["uniformity_t2"]["value"])


@functools.cache
def manifolds() -> dict[str, Any]:
    return inputs.manifolds()


@pytest.mark.parametrize("name", MANIFOLDS)
def test_intrinsic_dimension(name: str) -> None:
    _, X = manifolds()[name]
    peers = RESULTS["id"][f"{name}_n5000_D512"]
    graph = Neighbors.of(X, k=32)
    two_nn = ix.measures.two_nn.evaluate(neighbors=graph)
    mle = ix.measures.mle_dimension.evaluate(neighbors=graph)
    for key in ("skdim_TwoNN", "dadapy_2NN_base", "twonn_linfit_discard0.1"):
        assert agrees(two_nn, peers[key]["value"]), key
    for key in ("skdim_MLE_k20", "mle_k20_inverse_mean(MacKay-Ghahramani)"):
        assert agrees(mle, peers[key]["value"]), key
    two_nn_ml = ix.measures.two_nn_ml.evaluate(neighbors=graph)
    for key in ("dadapy_2NN_ml", "twonn_mle_unbiased"):
        assert agrees(two_nn_ml, peers[key]["value"]), key
    assert agrees(ix.measures.mle_dimension_mean.evaluate(neighbors=graph), peers["mle_k20_mean(Levina-Bickel)"]["value"])
    assert ix.measures.lpca_dimension(X) == peers["skdim_lPCA_FO"]["value"]


@pytest.mark.parametrize("name", ["cube_d5", "swissroll_d2", "cube_d5_noise1e-2"])
def test_dimension_over_scales(name: str) -> None:
    """DADApy stops its search for the root at 1e-8; at scale 1 there is a closed form, which it leaves on the swiss roll."""
    _, X = manifolds()[name]
    peers = RESULTS["id"][f"{name}_n5000_D512"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InscapeWarning)
        curve = ix.measures.gride(X)
    theirs = peers["dadapy_gride_scaling_1..16"]["value"]
    for ours, peer in zip(curve.values[1:], theirs[1:], strict=True):
        assert agrees(ours, peer, 2e-8)
    assert agrees(curve.values[0], peers["dadapy_2NN_ml"]["value"])
    assert agrees(curve.values[0], theirs[0], 2e-8) != (name == "swissroll_d2")
    assert [str(one.message).split(",")[0] for one in caught] == (
        ["gride: the dimension depends on the scale"] if name == "cube_d5_noise1e-2" else []
    )


@pytest.mark.parametrize("n", [100, 400])
def test_pieces_and_loops_of_a_noisy_circle(n: int) -> None:
    X = inputs.circle(n)
    peers = RESULTS["ph"][f"circle_n{n}_noise0.05"]
    assert agrees(ix.measures.persistence_h0(X).value, peers["H0_total_persistence_by_MST"]["value"])
    _, total, loops, first, second = peers["gudhi_RipsPersistence_[nH0,sumH0,nH1,top1,top2]"]["value"]
    curve = ix.measures.persistence_h1(X, landmarks=400)
    lengths = [death - birth for birth, death in zip(curve.at, curve.values, strict=True)]
    assert agrees(ix.measures.persistence_h0(X).value, total)
    assert agrees(curve.value, first) and agrees(lengths[0], first) and agrees(lengths[1], second)
    assert len(lengths) == loops


def test_ricci_curvature_of_a_noisy_circle() -> None:
    mean, low, high, _ = RESULTS["ricci"]["circle_n200_k8_unweighted_alpha0.5"]["OllivierRicci_[mean,min,max,edges]"]["value"]
    curve = ix.measures.ollivier_ricci(inputs.circle(200), edges=10**6)
    assert agrees(curve.value, mean) and agrees(curve.values[0], low) and agrees(curve.values[-1], high)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_class_separation_is_the_inverse_of_the_balanced_trace_ratio(sigma: float) -> None:
    X, labels, _ = inputs.etf_classes(sigma=sigma)
    peer = RESULTS["nc"][f"etf_C10_D64_sigma{sigma}"]["nc1_trSW_over_trSB"]["value"]
    assert agrees(1 / ix.measures.class_separation(X, labels), peer)


COLLAPSE = {
    "nc1_trSWpinvSB_over_C": "nc1",
    "nc1_trSW_over_trSB": "nc1_trace",
    "nc2_equinorm_cv": "nc2_equinorm",
    "nc2_cos_std": "nc2_equiangular",
    "nc2_maxangle": "nc2_max_angle",
    "nc2_etf_frobenius": "nc2_etf",
    "cdnv_mean": "cdnv",
    "vci": "variability_collapse",
}


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.5, 2.0])
def test_neural_collapse(sigma: float) -> None:
    X, labels, means = inputs.etf_classes(sigma=sigma)
    peers = RESULTS["nc"][f"etf_C10_D64_sigma{sigma}"]
    for key, name in COLLAPSE.items():
        assert agrees(ix.measures.get(name)(X, labels), peers[key]["value"]), (name, key)
    assert agrees(ix.measures.nc3_duality(X, labels, weights=means), peers["nc3_selfdual"]["value"])
    # The bias takes back what the center of the rows, which is not zero, adds to each output.
    center = np.stack([X[labels == one].mean(0) for one in range(10)]).mean(0)
    with_bias = ix.measures.nc4_agreement(X, labels, weights=(means, -means @ center))
    assert agrees(with_bias, peers["nc4_agreement_with_bias"]["value"])
    if sigma > 0:  # without noise the outputs differ by rounding alone, and who wins is a matter of taste
        assert agrees(ix.measures.nc4_agreement(X, labels, weights=means), peers["nc4_agreement_bias_dropped_on_uncentred"]["value"])


@pytest.mark.parametrize(("name", "shape"), [("gauss", None), ("pareto1.2", 1.2), ("pareto2.0", 2.0)])
def test_power_law_of_weights(name: str, shape: float | None) -> None:
    rng = np.random.default_rng(21)
    W = rng.standard_normal((300, 200)) if shape is None else rng.pareto(shape, (300, 200)) * rng.choice([-1, 1], (300, 200))
    W = W.astype(np.float32) / np.float32(np.sqrt(200))
    alpha, distance, start, stable_rank, largest = RESULTS["ww"][f"{name}_300x200"]["[alpha,D,xmin,stable_rank,spectral_norm]"]["value"]
    values = np.linalg.svd(W.astype(np.float64), compute_uv=False) ** 2
    assert agrees(values[0], largest, 1e-6)
    assert agrees(values.sum() / values[0], stable_rank, 1e-6)
    fitted = tail_fit(values)
    assert agrees(fitted[0], alpha, 1e-6)
    assert agrees(fitted[1], start, 1e-6)
    assert agrees(fitted[2], distance, 1e-6)
    if shape is None:
        with pytest.raises(DegenerateInputError, match=r"within the bulk of a random matrix .* alpha 10\.65 from 14 of 200"):
            ix.measures.weight_alpha(W)
    else:
        assert agrees(ix.measures.weight_alpha(W), alpha, 1e-6)

"""Known differences: what another library computes in place of what its name says, spelled out until its value comes out, beside ours."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import inscape as ix
from inscape.errors import InscapeWarning

_spec = importlib.util.spec_from_file_location("compare_inputs", Path(__file__).with_name("compare_inputs.py"))
assert _spec is not None and _spec.loader is not None
inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inputs)

X, Y = inputs.pair()
A, B = inputs.square()


@pytest.fixture(scope="module")
def peers() -> dict[str, Any]:
    return {key: row["value"] for key, row in json.loads(Path(__file__).with_name("compare.json").read_text())["values"].items()}


@pytest.fixture(autouse=True)
def few_rows_are_known() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InscapeWarning)
        yield


def center(Z: np.ndarray) -> np.ndarray:
    return Z - Z.mean(0)


def test_svcca_of_a_peer_keeps_one_component(peers: dict[str, Any]) -> None:
    def first(Z: np.ndarray) -> np.ndarray:
        left, values, _ = np.linalg.svd(center(Z), full_matrices=False)
        return left[:, :1] * values[0]

    assert ix.measures.cca_mean(first(X), first(Y)) == pytest.approx(peers["resi/svcca/pair"], abs=1e-8)
    assert ix.measures.svcca(X, Y) == pytest.approx(peers["resi/svcca/pair_unit_frobenius"], abs=1e-8) != peers["resi/svcca/pair"]


def test_pwcca_of_a_peer_weighs_by_rows_and_orthonormalizes_coefficients(peers: dict[str, Any]) -> None:
    (left_x, size_x, right_x), (left_y, _, _) = (np.linalg.svd(center(Z), full_matrices=False) for Z in (X, Y))
    left, correlations, _ = np.linalg.svd(left_x.T @ left_y, full_matrices=False)
    coefficients = np.linalg.qr((right_x.T / size_x) @ left)[0]
    weights = np.abs(X @ coefficients).sum(0)  # rows that are not centered, and a sum over them in place of units
    theirs = float(weights @ correlations / weights.sum())
    assert 1 - theirs == pytest.approx(peers["anatome/pwcca_dist/pair"], abs=1e-8)
    assert 1 - ix.measures.pwcca_sim_metric(X, Y) == pytest.approx(peers["sim_metric/pwcca_dist/pair"], abs=1e-8)
    assert abs(ix.measures.pwcca(X, Y) - theirs) > 0.2


def test_difference_of_a_peer_is_the_spectral_norm_of_distances(peers: dict[str, Any]) -> None:
    def distances(Z: np.ndarray) -> np.ndarray:
        return np.linalg.norm(Z[:, None] - Z[None], axis=2)

    assert np.linalg.norm(distances(X) - distances(Y), 2) == pytest.approx(peers["resi/rsm_norm_diff/pair"], rel=1e-8)
    between = np.corrcoef(X) - np.corrcoef(Y)
    assert ix.measures.rsm_norm_difference(X, Y) == pytest.approx(np.linalg.norm(between), rel=1e-10)


@pytest.mark.parametrize("key,pair", [("pair", (X, Y)), ("square", (A, B))])
def test_permutation_distance_of_a_peer_does_not_center(key: str, pair: tuple[np.ndarray, np.ndarray], peers: dict[str, Any]) -> None:
    def least(P: np.ndarray, Q: np.ndarray) -> float:
        rows, columns = linear_sum_assignment(P.T @ Q, maximize=True)
        return float(np.sqrt((P**2).sum() + (Q**2).sum() - 2 * (P.T @ Q)[rows, columns].sum()))

    assert least(*pair) == pytest.approx(peers[f"resi/perm_procrustes/{key}"], rel=1e-8)
    assert ix.measures.permutation_procrustes(*pair) == pytest.approx(least(*(center(Z) for Z in pair)), rel=1e-8)


def test_second_order_cosine_of_a_peer_is_of_distances(peers: dict[str, Any]) -> None:
    cosines = [unit @ unit.T for unit in (Z / np.linalg.norm(Z, axis=1, keepdims=True) for Z in (X, Y))]
    values: dict[str, list[float]] = {"distances": [], "similarities": []}
    for i in range(len(X)):
        order = [[j for j in np.argsort(-S[i], kind="stable") if j != i][:10] for S in cosines]
        union = sorted({*order[0], *order[1]})
        for kind, (a, b) in {"similarities": [S[i, union] for S in cosines], "distances": [1 - S[i, union] for S in cosines]}.items():
            values[kind].append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    assert np.mean(values["distances"]) == pytest.approx(peers["resi/second_order_cosine_k10/pair"], abs=1e-8)
    assert ix.measures.second_order_cosine(X, Y) == pytest.approx(np.mean(values["similarities"]), abs=1e-8)


def test_partial_whitening_of_a_peer_depends_on_scale_and_count() -> None:
    tiled = [np.tile(Z, (4, 1)) for Z in (A, B)]
    theirs = [ix.measures.shape_alpha_netrep(*pair) for pair in ((A, B), (100 * A, 100 * B), tiled)]
    assert theirs == pytest.approx([0.1682, 0.1599, 0.1639], abs=1e-4)  # the peer's own values on these inputs
    ours = [ix.measures.shape_alpha(*pair) for pair in ((A, B), (100 * A, 100 * B), tiled, (1e-4 * A, 1e-4 * B))]
    assert ours == pytest.approx([ours[0]] * 4, abs=1e-9)


@pytest.mark.parametrize("batch", [120, 30, 12])
def test_minibatches_in_their_order_give_the_layer_map_of_a_peer(batch: int, peers: dict[str, Any]) -> None:
    stream = np.random.RandomState(8)
    first, second = ([X @ W.T, np.tanh(X @ W.T)] for W in (stream.randn(16, 30), stream.randn(16, 30)))
    ours = [[ix.measures.minibatch_cka(P, Q, batch=batch) for Q in second] for P in first]
    np.testing.assert_allclose(ours, peers[f"torch_cka/minibatch={batch}/f32"], atol=1e-5)  # the peer computes in fp32


def test_rows_shuffled_apart_destroy_the_value_and_that_is_seen() -> None:
    # A peer reads both models through loaders that shuffle by themselves: two copies of one network then score .05.
    order = np.random.default_rng(0).permutation(len(X))
    assert abs(ix.measures.minibatch_cka(X, X[order], batch=30)) < 0.1
    assert ix.measures.minibatch_cka(X, X, batch=30, seed=3) == pytest.approx(1)


def test_overlap_of_spans_by_the_canonical_correlations(peers: dict[str, Any]) -> None:
    spans = [np.linalg.svd(Z, full_matrices=False)[0] for Z in (X, Y)]  # a peer does not center, and divides by the larger width
    assert (np.linalg.norm(spans[0].T @ spans[1]) ** 2 / 30) == pytest.approx(peers["resi/eigenspace_overlap/pair"], abs=1e-8)
    centered = [np.linalg.svd(center(Z), full_matrices=False)[0] for Z in (X, Y)]
    assert ix.measures.cca_r2(X, Y) == pytest.approx(np.linalg.norm(centered[0].T @ centered[1]) ** 2 / 24, abs=1e-10)

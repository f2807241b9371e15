"""Measures of a pair against the values that other libraries gave for the same seeded inputs."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.errors import InscapeWarning
from inscape.summaries import RDM

_spec = importlib.util.spec_from_file_location("compare_inputs", Path(__file__).with_name("compare_inputs.py"))
assert _spec is not None and _spec.loader is not None
inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inputs)


@pytest.fixture(scope="module")
def peers() -> dict[str, Any]:
    import json

    return {key: row["value"] for key, row in json.loads(Path(__file__).with_name("compare.json").read_text())["values"].items()}


def unit_rows(X: np.ndarray) -> np.ndarray:
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def padded(X: np.ndarray, d: int) -> np.ndarray:
    return np.concatenate([X, np.zeros((len(X), d - X.shape[1]))], axis=1)


def agrees(value: float, peer: float, tolerance: float = 1e-8) -> bool:
    return abs(value - peer) <= tolerance * max(1.0, abs(peer))


PAIR, WIDE, SQUARE = inputs.pair(), inputs.wide(), inputs.square()
cka, debiased, angle, cca, rsa = (
    getattr(ix.measures, name) for name in ("linear_cka", "linear_cka_debiased", "procrustes", "cca_mean", "rsa_spearman")
)

CASES: list[tuple[str, Callable[[], float]]] = [
    ("resi/cka/pair", lambda: cka(*PAIR)),
    ("resi/cka/wide", lambda: cka(*WIDE)),
    ("sim_metric/lin_cka_dist/pair", lambda: 1 - cka(*PAIR)),
    ("anatome/lincka_dist/pair", lambda: 1 - cka(*PAIR)),
    ("anatome/lincka_dist/wide", lambda: 1 - cka(*WIDE)),
    ("netrep/cka_arccos/pair", lambda: math.acos(cka(*PAIR))),
    ("platonic/cka/unbiased=False/pair", lambda: cka(*PAIR)),
    ("platonic/cka/unbiased=False/wide", lambda: cka(*WIDE)),
    ("anatome/lincka_dist_debiased/pair", lambda: 1 - debiased(*PAIR)),
    ("anatome/lincka_dist_debiased/wide", lambda: 1 - debiased(*WIDE)),
    ("platonic/cka/unbiased=True/pair", lambda: debiased(*PAIR)),
    ("platonic/cka/unbiased=True/wide", lambda: debiased(*WIDE)),
    ("netrep/linear/alpha=1.0/angular/square", lambda: angle(*SQUARE)),
    ("netrep/linear/alpha=1.0/angular/pair_zero_padded", lambda: angle(PAIR[0], padded(PAIR[1], 30))),
    ("resi/angular_shape_centered/pair", lambda: angle(*PAIR)),
    ("sim_metric/procrustes_sq/pair", lambda: 2 - 2 * math.cos(angle(*PAIR))),
    ("anatome/opd/pair", lambda: 1 - math.cos(angle(*PAIR))),
    ("resi/procrustes_centered_normalised/pair", lambda: math.sqrt(2 - 2 * math.cos(angle(*PAIR)))),
    ("resi/procrustes_centered_normalised/square", lambda: math.sqrt(2 - 2 * math.cos(angle(*SQUARE)))),
    ("sim_metric/mean_cca/pair", lambda: cca(*PAIR)),
    ("sim_metric/mean_sq_cca/pair", lambda: ix.measures.cca_r2(*PAIR)),
    ("sim_metric/pwcca_dist/pair", lambda: 1 - ix.measures.pwcca_sim_metric(*PAIR)),
    ("anatome/svcca_dist/pair", lambda: 1 - ix.measures.svcca_anatome(*PAIR)),
    ("resi/svcca/pair_unit_frobenius", lambda: ix.measures.svcca(*PAIR)),
    ("resi/linear_regression/pair", lambda: ix.measures.linear_r2(PAIR[1], PAIR[0])),
    ("resi/linear_regression/pair", lambda: ix.measures.redundancy(PAIR[1], PAIR[0])),
    ("gulp/squared/lambda=0/pair", lambda: ix.measures.gulp(*PAIR, penalty=0.0)),
    ("resi/gulp_0/pair", lambda: ix.measures.gulp(*PAIR, penalty=0.0)),
    ("gulp/squared/lambda=1e-06/pair", lambda: ix.measures.gulp(*PAIR, penalty=1e-6)),
    ("gulp/squared/lambda=0.001/pair", lambda: ix.measures.gulp(*PAIR, penalty=1e-3)),
    ("gulp/squared/lambda=0.01/pair", lambda: ix.measures.gulp(*PAIR)),
    ("resi/gulp_1e-2/pair", lambda: ix.measures.gulp(*PAIR)),
    ("gulp/squared/lambda=1.0/pair", lambda: ix.measures.gulp(*PAIR, penalty=1.0)),
    ("netrep/linear/alpha=1.0/angular/square", lambda: ix.measures.shape_alpha(*SQUARE, alpha=1.0)),
    ("netrep/linear/alpha=0.5/angular/square", lambda: ix.measures.shape_alpha_netrep(*SQUARE)),
    ("netrep/linear/alpha=0.1/angular/square", lambda: ix.measures.shape_alpha_netrep(*SQUARE, alpha=0.1)),
    ("netrep/linear/alpha=0.0/angular/square", lambda: ix.measures.shape_alpha(*SQUARE, alpha=0.0)),
    ("netrep/linear/alpha=0.5/angular/pair_zero_padded", lambda: ix.measures.shape_alpha_netrep(PAIR[0], padded(PAIR[1], 30))),
    ("netrep/linear/alpha=1.0/euclidean/square", lambda: ix.measures.procrustes_distance(*SQUARE)),
    ("resi/procrustes_size_and_shape/pair", lambda: ix.measures.procrustes_distance(*PAIR)),
    ("sim_metric/procrustes_sq/pair", lambda: ix.measures.procrustes_normalized(*PAIR)),
    ("resi/hard_corr_match/pair", lambda: ix.measures.neuron_match(*PAIR)),
    ("resi/hard_corr_match/square", lambda: ix.measures.neuron_match(*SQUARE)),
    ("resi/hard_corr_match/square", lambda: ix.measures.soft_matching(*SQUARE)),
    ("resi/soft_corr_match/pair", lambda: ix.measures.neuron_match_soft(*PAIR)),
    ("netrep/perm/euclidean/square", lambda: ix.measures.permutation_procrustes(*SQUARE)),
    ("resi/jaccard_k10/pair", lambda: ix.measures.jaccard_knn(*PAIR)),
    ("resi/jaccard_k10/wide", lambda: ix.measures.jaccard_knn(*WIDE)),
    ("resi/rank_similarity_k10/pair", lambda: ix.measures.rank_similarity(*PAIR)),
    ("resi/distance_correlation/pair", lambda: ix.measures.distance_correlation(*PAIR)),
    ("resi/rsa/pair", lambda: rsa(*PAIR)),
    ("resi/rsa/wide", lambda: rsa(*WIDE)),
]


@pytest.mark.parametrize("key,ours", CASES, ids=[key for key, _ in CASES])
def test_value_equals_the_peer(key: str, ours: Callable[[], float], peers: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InscapeWarning)  # the inputs are smaller than cca_mean advises
        assert agrees(ours(), peers[key])


@pytest.mark.parametrize("k", [5, 10, 20])
def test_mutual_knn_equals_the_peer_neighbor_by_neighbor(k: int, peers: dict[str, Any]) -> None:
    X, Y = PAIR
    value = ix.measures.mutual_knn(X, Y, k=k)
    peer = peers[f"platonic/mutual_knn/k={k}/pair_rownorm"]
    assert agrees(value, peer, 1e-6)  # the peer averages in fp32 (EXCEPTIONS.md)
    assert round(value * k * len(X)) == round(peer * k * len(X)), "not one neighbor apart"


@pytest.mark.parametrize("k", [5, 10, 20])
@pytest.mark.parametrize(
    "peer,name,factor", [("cycle_knn", "cycle_knn", 1), ("lcs_knn", "lcs_knn", None), ("edit_distance_knn", "edit_knn", 1)]
)
def test_orders_of_neighbors_equal_the_peer(peer: str, name: str, factor: int | None, k: int, peers: dict[str, Any]) -> None:
    value = ix.measures.get(name)(*PAIR, k=k) * (factor or k)  # the peer gives the length of the subsequence itself
    assert agrees(value, peers[f"platonic/{peer}/k={k}/pair_rownorm"], 1e-6)


@pytest.mark.parametrize("k", [5, 10, 20])
def test_cknna_up_to_the_constant_that_the_peer_adds(k: int, peers: dict[str, Any]) -> None:
    assert agrees(ix.measures.cknna(*PAIR, k=k), peers[f"platonic/cknna/k={k}/pair_rownorm"], 3e-5)


def test_rbf_cka_of_unit_rows_at_bandwidth_one(peers: dict[str, Any]) -> None:
    X, Y = (unit_rows(data) for data in PAIR)
    median = [float(RDM.of(data, "euclidean").values.median()) for data in (X, Y)]
    value = ix.measures.rbf_cka(X, Y, bandwidth=(1 / median[0], 1 / median[1]))
    assert agrees(value, peers["platonic/cka_rbf1/unbiased=False/pair_rownorm"], 1e-6)


@pytest.mark.parametrize("key", ["pair", "wide"])
def test_cka_of_unit_rows_up_to_the_constant_that_the_peer_adds(key: str, peers: dict[str, Any]) -> None:
    X, Y = (unit_rows(data) for data in (PAIR if key == "pair" else WIDE))
    assert agrees(cka(X, Y), peers[f"platonic/cka/unbiased=False/{key}_rownorm"], 1e-6)
    assert agrees(debiased(X, Y), peers[f"platonic/cka/unbiased=True/{key}_rownorm"], 2e-4 if key == "pair" else 1e-3)


def test_spearman_of_dissimilarities_equals_the_peer(peers: dict[str, Any]) -> None:
    data, models = inputs.rdm_family()
    for m in range(4):
        for s in range(2):
            value = rsa.evaluate(x=of_values(models[m]), y=of_values(data[s]))
            assert agrees(value, peers["rsatoolbox/compare/spearman/rdm_family"][m][s])


def test_spearman_gives_ties_their_mean_rank(peers: dict[str, Any]) -> None:
    data, models = inputs.rdm_family()
    for m, tied in enumerate(inputs.tied(models)):
        value = rsa.evaluate(x=of_values(tied), y=of_values(data[0]))
        assert agrees(value, peers["rsatoolbox/compare/spearman/tied_models"][m])


def of_values(values: np.ndarray) -> RDM:
    return RDM(torch.from_numpy(np.ascontiguousarray(values)), 15, "squared_euclidean")

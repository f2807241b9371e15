"""Pairs with more units than rows: the numbers come from the rows' span, not from matrices of width²."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures import registry
from inscape.summaries import CrossMoments, Moments
from inscape.summaries.rows import in_span
from inscape.summaries.spectra import left_singular_vectors

TURNS = sorted(
    one.name for one in registry.all_measures() if one.turns and any(issubclass(cls, CrossMoments) for cls, _ in one.needs.values())
)


def _pair(rank: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Rows [30, 45] and [30, 60] of a rank far below both sides."""
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((30, rank))
    mixed = latent + rng.standard_normal((30, rank))
    return latent @ rng.standard_normal((rank, 45)) + 3, mixed @ rng.standard_normal((rank, 60))


def _narrow(rows: np.ndarray, rank: int = 7) -> np.ndarray:
    """Principal coordinates by NumPy: the same rows up to a rotation and a shift, fewer units than rows."""
    centered = rows - rows.mean(0)
    return centered @ np.linalg.svd(centered)[2][:rank].T


def test_the_measures_that_no_rotation_changes_are_the_expected_ones():
    assert {"cca_mean", "cca_r2", "svcca", "procrustes", "gulp", "linear_r2", "redundancy", "shape_alpha"} <= set(TURNS)
    assert not {"pwcca", "neuron_match", "permutation_procrustes"} & set(TURNS)


@pytest.mark.parametrize("name", TURNS)
def test_wide_rows_give_the_value_of_their_principal_coordinates(name: str):
    X, Y = _pair()
    one = getattr(ix.measures, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wide, narrow = one(X, Y), one(_narrow(X), _narrow(Y))
        table = ix.compare(ix.Store.from_arrays({"a": X}), ix.Store.from_arrays({"b": Y}), one, interval=None).frame()
    assert wide == pytest.approx(narrow, abs=1e-7)
    assert table["value"][0] == pytest.approx(wide, abs=1e-9)
    assert (table["d"][0], table["d_b"][0]) == (45, 60)


def test_canonical_correlations_and_nuclear_norms_are_those_of_numpy():
    X, Y = _pair()
    left, right = (np.linalg.svd(rows - rows.mean(0), full_matrices=False) for rows in (X, Y))
    correlations = np.linalg.svd(left[0][:, :7].T @ right[0][:, :7], compute_uv=False)
    nuclear = np.linalg.svd((X - X.mean(0)).T @ (Y - Y.mean(0)), compute_uv=False).sum()
    shared = nuclear / np.linalg.norm(X - X.mean(0)) / np.linalg.norm(Y - Y.mean(0))
    with pytest.warns(InscapeWarning, match="fewer than 5"):
        assert ix.measures.cca_mean(X, Y) == pytest.approx(correlations.mean(), abs=1e-9)
    assert ix.measures.procrustes(X, Y) == pytest.approx(np.arccos(shared), abs=1e-9)
    # PWCCA depends on the units of X: its weights are sums over them.
    u = np.linalg.svd(left[0][:, :7].T @ right[0][:, :7])[0]
    weights = np.abs((left[0][:, :7] @ u).T @ (X - X.mean(0))).sum(1)
    with pytest.warns(InscapeWarning, match="fewer than 5"):
        assert ix.measures.pwcca(X, Y) == pytest.approx(weights @ correlations / weights.sum(), abs=1e-9)


def test_a_refusal_names_the_units_that_were_given():
    rng = np.random.default_rng(1)
    with pytest.raises(DegenerateInputError, match=r"X \[20, 50\] of rank 19, Y \[20, 40\] of rank 19"):
        ix.measures.cca_mean(rng.standard_normal((20, 50)), rng.standard_normal((20, 40)))


def test_coordinates_in_the_span_keep_all_inner_products():
    rows = torch.randn(12, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -9, 40)
    centered = rows - rows.mean(0)
    turned = in_span(rows)
    assert turned.shape == (12, 12)
    torch.testing.assert_close(turned @ turned.T, centered @ centered.T, rtol=0, atol=1e-14)
    assert in_span(rows.T) is not None and torch.equal(in_span(rows.T), rows.T)


def test_moments_of_few_rows_whiten_them_without_the_wide_side():
    rows = torch.randn(9, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moments = Moments.of(rows)
    basis = (rows - rows.mean(0)) @ moments.whitener
    assert moments.dual and moments.whitener.shape == (30, 8)
    torch.testing.assert_close(basis.T @ basis, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(moments.loading, basis.T @ (rows - rows.mean(0)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(20, 20), (20, 35), (35, 20)])
@pytest.mark.parametrize("least", [1e-1, 1e-7])
def test_left_singular_vectors_are_those_of_a_decomposition(shape: tuple[int, int], least: float):
    rng = np.random.default_rng(0)
    u, _, v = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    values = np.geomspace(1, least, 20)
    left, found = left_singular_vectors(torch.from_numpy((u * values) @ v))
    np.testing.assert_allclose(found.numpy(), values, atol=1e-14)
    np.testing.assert_allclose(np.abs(np.diag(u.T @ left.numpy())), 1, atol=1e-9)

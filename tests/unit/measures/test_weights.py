"""Measures of matrices of parameters against NumPy, and through the verb on a model's own parameters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeWarning, SiteNotFoundError, StimuliError, UnknownMeasureError


def test_parameter_effective_rank_by_definition() -> None:
    W = np.random.default_rng(0).standard_normal((40, 24))
    s = np.linalg.svd(W, compute_uv=False)
    p = s / s.sum()
    assert ix.measures.parameter_effective_rank(W) == pytest.approx(math.exp(-(p * np.log(p)).sum()) / 24, rel=1e-12)
    assert ix.measures.parameter_effective_rank(np.outer(np.arange(1.0, 5), [1.0, 2])) == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(DegenerateInputError, match=r"the matrix is zero \(shape \(3, 2\)\)"):
        ix.measures.parameter_effective_rank(np.zeros((3, 2)))


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0])
def test_alpha_of_a_pure_power_law(alpha: float) -> None:
    """Quantiles of a power law of that exponent as eigenvalues, in any basis."""
    ranks = (np.arange(400) + 0.5) / 400
    values = ranks ** (-1 / (alpha - 1))
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((400, 400)))[0] for _ in range(2))
    assert ix.measures.weight_alpha((left * np.sqrt(values)) @ right) == pytest.approx(alpha, rel=0.02)


@pytest.mark.parametrize("shape", [(60, 60), (128, 64), (300, 100)])
def test_gaussian_matrices_have_no_exponent(shape: tuple[int, int]) -> None:
    for seed in range(5):
        with pytest.raises(DegenerateInputError, match="there is no heavy tail"):
            ix.measures.weight_alpha(np.random.default_rng(seed).standard_normal(shape) / 7)


def test_a_bulk_with_spikes_is_no_power_law() -> None:
    rng = np.random.default_rng(0)
    W = rng.standard_normal((400, 200)) + rng.standard_normal((400, 5)) @ rng.standard_normal((5, 200))
    with pytest.raises(DegenerateInputError, match=r"no power law fits the tail \(p < .05\)"):
        ix.measures.weight_alpha(W)
    with pytest.raises(DegenerateInputError, match="has 20 eigenvalues above rounding; a tail needs at least 50"):
        ix.measures.weight_alpha(rng.standard_normal((400, 20)))


def test_superposition_by_pairs_and_at_welchs_bound() -> None:
    W = np.random.default_rng(0).standard_normal((30, 8)) * np.arange(1, 31)[:, None]
    units = W / np.linalg.norm(W, axis=1, keepdims=True)
    cosines = (units @ units.T)[np.triu_indices(30, 1)]
    assert ix.measures.superposition(W) == pytest.approx((cosines**2).mean(), rel=1e-12)
    assert ix.measures.superposition(W[:5]) == pytest.approx((cosines_of(units[:5]) ** 2).mean(), rel=1e-12)
    turns = 2 * np.pi * np.arange(7) / 7
    tight = np.stack([np.cos(turns), np.sin(turns)], 1)  # seven directions of the plane, a tight frame
    assert ix.measures.superposition(tight) == pytest.approx((7 - 2) / (2 * (7 - 1)), rel=1e-12)
    assert ix.measures.get("superposition").record(7, 2) == {"random": 0.5, "welch_bound": pytest.approx(5 / 12)}
    assert ix.measures.superposition(np.eye(5)) == 0
    with pytest.warns(InscapeWarning, match="2 of 32 rows are zero"):
        assert ix.measures.superposition(np.vstack([W, np.zeros((2, 8))])) == pytest.approx((cosines**2).mean(), rel=1e-12)


def cosines_of(units: np.ndarray) -> np.ndarray:
    return (units @ units.T)[np.triu_indices(len(units), 1)]


def test_random_directions_overlap_by_one_over_d() -> None:
    for d in (8, 32, 128):
        W = np.random.default_rng(d).standard_normal((4000, d))
        assert ix.measures.superposition(W) * d == pytest.approx(1, rel=0.02)


def test_spectral_alignment_by_definition() -> None:
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((90, 6)) + 0.4, rng.standard_normal((10, 6))
    side = X @ np.linalg.svd(W)[2][0]
    expected = min((side > 0).mean(), (side < 0).mean())
    assert ix.measures.spectral_alignment(X, weights=W) == pytest.approx(expected, abs=1e-12)
    layer = torch.nn.Linear(6, 10).double()
    layer.weight.data = torch.from_numpy(W)
    assert ix.measures.spectral_alignment(X, weights=layer) == pytest.approx(expected, abs=1e-12)
    assert ix.measures.spectral_alignment(np.abs(X), weights=np.abs(W)) == 0
    with pytest.raises(DegenerateInputError, match=r"the weights are all zero \(shape \(10, 6\)\)"):
        ix.measures.spectral_alignment(X, weights=np.zeros((10, 6)))
    with pytest.raises(DegenerateInputError, match="all 3 rows are zero"):
        ix.measures.spectral_alignment(np.zeros((3, 6)), weights=W)


def test_the_parameters_of_a_model_are_its_sites() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 5))
    model = ix.load(module)
    result = ix.measure(model, ["parameter_effective_rank", "superposition"])
    assert result.unique("site") == ["0.weight", "2.weight"]
    for name, weight in (("0.weight", module[0].weight.flatten(1)), ("2.weight", module[2].weight)):
        for kind in ("parameter_effective_rank", "superposition"):
            row = result.where(site=name, measure=kind).rows()[0]
            assert row["value"] == pytest.approx(ix.measures.get(kind)(weight.detach()), rel=1e-9)
            assert row["interval_method"] == "none: parameters are no sample"
            assert row["low"] is None
    assert ix.measure(model, "superposition", sites="2.*").unique("site") == ["2.weight"]
    with pytest.raises(SiteNotFoundError, match="has no matrix of parameters '3.weight'; nearest: .*2.weight"):
        ix.measure(model, "superposition", sites="3.weight")
    with pytest.raises(StimuliError, match="looks at its parameters; leave stimuli= out"):
        ix.measure(model, "superposition", stimuli=torch.zeros(3, 3, 3, 3))
    with pytest.raises(UnknownMeasureError, match="superposition: of a model's parameters, not of its activations"):
        ix.measure(model, ["superposition", "effective_rank"], stimuli=torch.zeros(3, 3, 3, 3))


def test_matrices_of_any_shape_in_one_call() -> None:
    rng = np.random.default_rng(0)
    given = {"up": rng.standard_normal((30, 8)), "down": rng.standard_normal((8, 30))}
    result = ix.measure(given, "parameter_effective_rank")
    assert result.value(site="up") == pytest.approx(ix.measures.parameter_effective_rank(given["up"]), rel=1e-12)
    assert result.value(site="down") == pytest.approx(ix.measures.parameter_effective_rank(given["down"]), rel=1e-12)

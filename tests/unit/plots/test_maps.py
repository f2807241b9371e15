"""Two-dimensional maps against NumPy's singular value decomposition."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from inscape.errors import MissingExtraError, ResultError
from inscape.plots import map2d
from inscape.plots.maps import principal_plane
from inscape.store import Store


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_the_plane_is_that_of_the_singular_value_decomposition(shape):
    X = np.random.default_rng(0).standard_normal(shape) * np.linspace(3, 1, shape[1])
    points, shares = principal_plane(torch.from_numpy(X))
    U, S, _ = np.linalg.svd(X - X.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(U[:, :2] * S[:2]), atol=1e-9)
    np.testing.assert_allclose(shares, (S**2 / (S**2).sum())[:2], atol=1e-12)


def test_signs_do_not_depend_on_the_solver():
    X = torch.randn(30, 5, dtype=torch.float64)
    np.testing.assert_allclose(principal_plane(X)[0], principal_plane(X.clone())[0])
    assert principal_plane(X)[0][:, 0] @ X[:, int(torch.linalg.svd(X - X.mean(0)).Vh[0].abs().argmax())].numpy() > 0


def test_one_unit_and_constant_rows_give_an_empty_second_axis():
    points, shares = principal_plane(torch.arange(4.0)[:, None])
    np.testing.assert_allclose(points, [[-1.5, 0], [-0.5, 0], [0.5, 0], [1.5, 0]], atol=1e-12)
    assert shares == (1.0, 0.0)
    assert principal_plane(torch.ones(4, 3))[1] == (0.0, 0.0)


def test_a_view_is_colored_by_its_column():
    X = torch.randn(20, 4)
    stimuli = {"stimulus": [str(i) for i in range(20)], "kind": ["cat", "dog"] * 10}
    view = Store.from_arrays({"layer": X}, stimuli=stimuli)["layer"]
    ax = map2d(view, color="kind").axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cat", "dog"]
    assert ax.get_title(loc="left") == "layer"
    cats = ax.collections[0].get_offsets()
    np.testing.assert_allclose(cats, principal_plane(X)[0][::2], atol=1e-6)
    assert ax.get_xlabel().startswith("PC 1 (") and ax.get_xlabel().endswith("of variance)")


def test_numbers_get_a_scale_and_many_names_a_rest():
    X = torch.randn(30, 4)
    assert len(map2d(X, color=np.arange(30.0)).axes) == 2  # the second is the color bar
    names = [str(i % 10) for i in range(30)]
    legend = map2d(X, color=names).axes[0].get_legend()
    assert legend.get_texts()[0].get_text() == "3 others"
    assert len(legend.get_texts()) == 8


def test_what_a_map_cannot_do_says_so():
    X = torch.randn(5, 3)
    with pytest.raises(ResultError, match=r"color has shape \(2,\); expected one value for each of the 5 rows"):
        map2d(X, color=[1, 2])
    with pytest.raises(ResultError, match="color='kind' names a column, but plain arrays have none"):
        map2d(X, color="kind")
    if importlib.util.find_spec("umap") is None:
        with pytest.raises(MissingExtraError, match="needs the package 'umap-learn', which is not installed. Run: pip install umap-learn"):
            map2d(X, method="umap")

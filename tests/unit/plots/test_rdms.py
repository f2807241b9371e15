"""Heat maps of dissimilarity matrices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from inscape.errors import ResultError
from inscape.plots.rdms import classical_scaling, rdm_heatmaps
from inscape.rsa import RDMs

X = np.random.default_rng(0).standard_normal((10, 2))
ONE = RDMs(pdist(X), {"stimulus": range(10), "kind": list("aaaabbbbcc")}, ["ann"], distance="euclidean")
TWO = RDMs(pdist(X[::-1]), {"stimulus": range(10)}, ["bob"], distance="euclidean")


def test_classical_scaling_recovers_points_in_the_plane() -> None:
    assert pdist(classical_scaling(squareform(pdist(X)))) == pytest.approx(pdist(X), abs=1e-10)


def test_one_matrix_shows_its_upper_triangle_and_its_stimuli() -> None:
    figure = rdm_heatmaps(ONE, color="kind", scale="value")
    image = figure.axes[0].images[0].get_array()
    assert image is not None
    assert np.ma.getmaskarray(image)[5, 2] and image[2, 5] == pytest.approx(squareform(pdist(X))[2, 5])
    assert len(figure.axes[0].child_axes[0].collections) == 3


def test_two_matrices_come_with_their_difference() -> None:
    figure = ONE.plot(TWO)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title(loc="left") for axes in panels] == ["ann", "bob", "bob − ann"]
    ranks = [squareform(pdist(rows)[None][0].argsort().argsort() / 44) for rows in (X, X[::-1])]
    shown = panels[2].images[0].get_array()
    assert shown is not None
    assert shown[0, 3] == pytest.approx((ranks[1] - ranks[0])[0, 3])


def test_missing_pairs_are_blank_and_leave_no_map() -> None:
    values = pdist(X)
    values[0] = np.nan
    figure = rdm_heatmaps(RDMs(values))
    assert not figure.axes[0].child_axes
    image = figure.axes[0].images[0].get_array()
    assert image is not None and np.ma.getmaskarray(image)[0, 1]


def test_refusals() -> None:
    with pytest.raises(ResultError, match="too many"):
        rdm_heatmaps(RDMs(np.tile(pdist(X), (13, 1))))
    with pytest.raises(ResultError, match="no column"):
        rdm_heatmaps(ONE, color="kinds")
    with pytest.raises(ResultError, match="one matrix with one"):
        rdm_heatmaps(RDMs.concat([ONE, ONE]), TWO)

"""Figures of spectra, dimensions over scales and persistence show the numbers that they were given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inscape.errors import ResultError
from inscape.plots import curve_figure, persistence_diagrams, scale_curves, spectra
from inscape.results import Result


def curve(
    measure: str, axis: str, at: list[float], values: list[float], headline: float, site: str = "x", **head: Any
) -> list[dict[str, Any]]:
    rows = [
        {"system": "net", "site": site, "measure": measure, "axis": axis, "at": float(a), "value": v}
        for a, v in zip(at, values, strict=True)
    ]
    return [{"system": "net", "site": site, "measure": measure, "axis": axis, "value": headline, **head}, *rows]


def test_a_spectrum_has_its_fitted_tail() -> None:
    ranks = [1.0, 2, 11, 20, 40]
    rows = curve("spectrum_decay", "rank", ranks, [0.5, 0.3, *(2.0 / r**1.5 for r in ranks[2:])], 1.5)
    result = Result(rows, settings={"options": {"spectrum_decay": [{"first_rank": 11, "last_rank": 40}]}})
    ax = result.plot().axes[0]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    line, law = ax.get_lines()
    np.testing.assert_allclose(line.get_xdata(), ranks)
    np.testing.assert_allclose(law.get_xdata(), [11, 40])
    np.testing.assert_allclose(law.get_ydata(), [2 / 11**1.5, 2 / 40**1.5], rtol=1e-12)  # it passes through an exact law
    assert any("α = 1.50" in text.get_text() for text in ax.texts)
    with pytest.raises(ResultError, match="there is no spectrum to draw: none of the 1 rows"):
        spectra(Result([{"site": "x", "measure": "two_nn", "value": 1.0}]))


def test_what_depends_on_the_scale_is_ringed_and_named() -> None:
    told = "gride: the dimension depends on the scale, from 30 within 2 neighbors to 11 within 32 of 5000 rows"
    noisy = curve("gride", "scale", [1, 2, 4], [30.0, 20, 11], 30, site="noisy", reason=told)
    ax = scale_curves(Result([*noisy, *curve("gride", "scale", [1, 2, 4], [5.0, 5, 5], 5, site="clean")])).axes[0]
    rings = [line for line in ax.get_lines() if line.get_markerfacecolor() == "none"]
    np.testing.assert_allclose(rings[0].get_ydata(), [30, 20, 11])
    assert "○ depends on the scale: noisy" in [text.get_text() for text in ax.texts]
    clean = scale_curves(Result(curve("gride", "scale", [1, 2, 4], [5.0, 5, 5], 5))).axes[0]
    assert not [text for text in clean.texts if "depends" in text.get_text()]


def test_pieces_and_loops_lie_above_the_diagonal() -> None:
    rows = [
        *curve("persistence_h0", "birth", [0, 0], [2.0, 1], 3),
        *curve("persistence_h1", "birth", [0.5], [1.5], 1),
    ]
    ax = Result(rows).plot().axes[0]
    diagonal, pieces, loops = ax.get_lines()
    np.testing.assert_allclose(diagonal.get_xdata(), diagonal.get_ydata())
    np.testing.assert_allclose(pieces.get_xydata(), [[0, 2], [0, 1]])
    np.testing.assert_allclose(loops.get_xydata(), [[0.5, 1.5]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["pieces", "loops"]
    many = [row for site in range(9) for row in curve("persistence_h0", "birth", [0], [1.0], 1, site=f"blocks.{site}.resid_post")]
    assert len([panel for panel in persistence_diagrams(Result(many), most=4).axes if panel.has_data()]) <= 4
    with pytest.raises(ResultError, match="there is no diagram to draw: none of the 1 rows"):
        persistence_diagrams(Result([{"site": "x", "measure": "two_nn", "value": 1.0}]))


def test_each_curve_has_the_figure_of_its_axis() -> None:
    spectrum = curve("spectrum_decay", "rank", [1, 11, 20], [0.5, 0.2, 0.1], 1.0)
    pieces = curve("persistence_h0", "birth", [0], [1.0], 1)
    scales = curve("gride", "scale", [1, 2], [5.0, 4], 5)
    assert curve_figure(Result(spectrum)).axes[0].get_ylabel() == "share of variance"
    assert curve_figure(Result(pieces)).axes[0].get_xlabel() == "born at scale"
    assert curve_figure(Result(scales)).axes[0].get_xlabel() == "neighbors averaged over (scale)"
    assert [ax.get_title(loc="left") for ax in curve_figure(Result([*spectrum, *scales])).axes] == ["gride"]
    with pytest.raises(ResultError, match="curves over rank and birth do not fit into one figure"):
        curve_figure(Result([*spectrum, *pieces]))

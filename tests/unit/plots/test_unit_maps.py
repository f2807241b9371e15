"""Maps of units show the values that they are given, at the places that they are given."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

import inscape as ix
from inscape.errors import ResultError
from inscape.plots import fracture_maps, unit_maps

PLACES = np.stack(np.divmod(np.arange(36), 6), 1).astype(float)
WAVES = np.stack([np.sin(PLACES.sum(1) / 2), np.random.default_rng(0).standard_normal(36)])


def test_units_lie_at_their_places_in_the_color_of_their_value() -> None:
    figure = unit_maps(WAVES, PLACES, names=["wave", "noise"])
    for row, panel in enumerate(figure.axes):
        (points,) = panel.collections
        assert np.array_equal(points.get_offsets(), PLACES)
        assert np.allclose(points.get_array(), WAVES[row] - WAVES[row].mean())
        assert points.get_clim()[0] == -points.get_clim()[1]
    wave, noise = (panel.texts[0].get_text() for panel in figure.axes)
    assert wave == f"Moran's I {ix.measures.moran_i(WAVES[:1], PLACES):.2f}" and wave != noise
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["wave", "noise"]


def test_places_come_from_the_unit_table_and_flat_maps_say_so() -> None:
    store = ix.Store.from_arrays({"v1": np.stack([WAVES[0], np.ones(36)])}, units=pa.table({"x": PLACES[:, 0], "y": PLACES[:, 1]}))
    figure = unit_maps(store["v1"])
    assert [panel.texts[0].get_text()[:5] for panel in figure.axes] == ["Moran", "flat"]
    into = Figure().subplots()
    assert unit_maps(store["v1"], ax=into, rows=[0]) is into.get_figure()


def test_images_are_the_units_over_the_grid() -> None:
    X = np.random.default_rng(0).standard_normal((12, 5))
    figure = fracture_maps(X, (3, 4), units=[4, 0])
    for unit, panel in zip((4, 0), figure.axes, strict=False):
        (image,) = panel.images
        assert np.array_equal(image.get_array(), X[:, unit].reshape(3, 4))
        assert panel.get_title(loc="left") == f"unit {unit}"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ResultError, match=r"two numbers for each of 36 units, got positions of shape \(36, 1\)"):
        unit_maps(WAVES, PLACES[:, :1])
    with pytest.raises(ResultError, match="store a unit table with columns x and y"):
        unit_maps(WAVES)
    with pytest.raises(ResultError, match="12 rows do not fill a grid of 3 × 5"):
        fracture_maps(np.ones((12, 2)), (3, 5))
    with pytest.raises(ResultError, match="one ax"):
        fracture_maps(np.ones((12, 2)), (3, 4), Figure().subplots())

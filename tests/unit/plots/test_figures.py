"""Every figure shows the numbers it was given: lines, bands, cells and marks are read back from the axes."""

from __future__ import annotations

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch

from inscape.errors import ResultError
from inscape.plots import layer_curves, scale_curves, site_heatmaps, trajectories
from inscape.plots.theme import THEMES
from inscape.results import Result


def lines_of(ax):
    return [line for line in ax.get_lines() if len(line.get_xdata()) > 1 and line.get_linestyle() == "-"]


def texts_of(ax):
    return [text.get_text() for text in ax.texts]


def test_layer_curves_draw_values_bands_and_a_cross_for_what_is_missing(profile):
    figure = layer_curves(profile)
    two_nn, cka = figure.axes[:2]
    first, second = lines_of(two_nn)
    np.testing.assert_array_equal(first.get_ydata(), [np.nan, 11.0, 12.0, 13.0])
    np.testing.assert_array_equal(second.get_ydata(), [11.0, 12.0, 13.0, 14.0])
    band = two_nn.collections[1].get_paths()[0].vertices
    assert band[:, 1].min() == 9.0 and band[:, 1].max() == 15.0
    crosses = [line for line in two_nn.get_lines() if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [0]
    assert {"a", "b"} <= set(texts_of(two_nn))  # the lines are named where they end
    assert two_nn.get_title(loc="left") == "two_nn"
    assert two_nn.get_xlabel() == "blocks.*.resid_post"
    dashed = [line for line in cka.get_lines() if line.get_linestyle() == "--"]
    np.testing.assert_array_equal(dashed[0].get_ydata(), [0.05] * 4)
    assert "null" in texts_of(cka)
    # the declared range of linear_cka is 0 to 1, and the values fill most of it
    assert cka.get_ylim() == (0.0, pytest.approx(1.06))


def test_one_site_is_drawn_as_points_with_bars():
    result = Result(
        [{"system": s, "site": "out", "measure": "two_nn", "value": v, "low": v - 1, "high": v + 1} for s, v in (("a", 5), ("b", 6))]
    )
    ax = layer_curves(result).axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b"]
    assert [tuple(line.get_ydata()) for line in ax.get_lines()] == [(4, 6), (5,), (5, 7), (6,)]


def test_heatmap_cells_hatches_crosses_and_best_matches(comparison):
    figure = site_heatmaps(comparison)
    ax = figure.axes[0]
    cells = ax.images[0].get_array()
    np.testing.assert_allclose(cells.filled(np.nan), [[0.9, 0.1], [0.2, 0.8], [0.3, np.nan]])
    assert ax.images[0].get_clim() == (0.0, 1.0)  # the declared range, not the data's
    hatched = [patch for patch in ax.patches if isinstance(patch, PathPatch) and patch.get_hatch()]
    assert len(hatched) == 1
    corners = hatched[0].get_path().vertices
    assert (corners.min(0) == [0.5, -0.5]).all() and (corners.max(0) == [1.5, 0.5]).all()  # column 1, row 0: the one with p = .5
    cross = next(line for line in ax.get_lines() if line.get_marker() == "x")
    assert (cross.get_xdata(), cross.get_ydata()) == ([1], [2])
    printed = {text.get_text(): text.get_fontweight() for text in ax.texts}
    assert printed[".90"] == printed[".80"] == printed[".30"] == "bold"
    assert printed[".10"] == printed[".20"] == "normal"


def test_a_distance_is_bright_where_it_is_small(comparison):
    rows = [row | {"measure": "procrustes"} for row in comparison.rows()]
    image = site_heatmaps(Result(rows)).axes[0].images[0]
    assert image.get_cmap().name == "viridis_r"
    assert image.get_clim() == (0.0, pytest.approx(np.pi / 2))


def test_large_heatmaps_mark_the_best_match_instead_of_printing_numbers():
    rows = [
        {"system": "a", "site": f"s{i}", "system_b": "b", "site_b": f"t{j}", "measure": "linear_cka", "value": 1.0 - abs(i - j) / 20}
        for i in range(12)
        for j in range(12)
    ]
    ax = site_heatmaps(Result(rows)).axes[0]
    rings = next(line for line in ax.get_lines() if line.get_marker() == "o")
    np.testing.assert_array_equal(rings.get_xdata(), np.arange(12))
    np.testing.assert_array_equal(rings.get_ydata(), np.arange(12))


def test_trajectories_have_a_logarithmic_axis_that_holds_zero(training):
    ax = trajectories(training).axes[0]
    assert ax.get_xscale() == "symlog"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1k", "100", "10", "1"]
    np.testing.assert_array_equal(lines_of(ax)[0].get_xdata(), [0, 1, 10, 100, 1000])
    np.testing.assert_array_equal(lines_of(ax)[0].get_ydata(), [10.0, 9.5, 9.0, 8.5, 8.0])
    assert ["embed", "0", "1", "final_norm"] == texts_of(ax)[:4]


def test_evenly_spaced_steps_stay_linear():
    rows = [{"site": "x", "measure": "two_nn", "value": 1.0, "axis": "step", "at": s} for s in (100, 200, 300)]
    assert trajectories(Result(rows)).axes[0].get_xscale() == "linear"


def test_phases_stand_at_the_top_where_a_count_of_dimensions_turns(training):
    def panel(values, **more):
        rows = [{"site": "x", "measure": "rankme", "value": v, "axis": "step", "at": 2**i, **more} for i, v in enumerate(values)]
        return trajectories(Result(rows)).axes[0]

    ax = panel([40, 30, 5, 5, 20, 60, 59, 30])
    assert texts_of(ax)[:3] == ["collapse", "expansion", "compression"]
    # a fall from step 1 to 4, a rise to 32, a fall to 128: the first and the last are tinted
    assert [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches] == [(1, 4), (32, 128)]
    assert ax.get_ylim()[1] > 60
    assert not panel([40, 30, 20]).patches
    assert not panel([40, 5, 0, 20]).patches
    assert not panel([1, 9] * 4).patches
    assert not trajectories(training).axes[0].patches
    # each of two sites failed once: the lines are drawn, and no mean over them is named
    places = {"measure": "rankme", "axis": "step"}
    rows = [{**places, "site": s, "at": at, "value": v} for s, at, v in (("x", 1, 9.0), ("x", 2, 2.0), ("y", 1, 9.0), ("y", 4, 8.0))]
    gaps = [{**places, "site": s, "at": at, "value": None, "status": "failed", "reason": "hand-made"} for s, at in (("x", 4), ("y", 2))]
    assert not trajectories(Result([*rows, *gaps])).axes[0].patches


def test_seeds_are_lines_of_their_own_style(training):
    rows = [row | {"seed": seed} for seed in (0, 1) for row in training.rows()]
    ax = trajectories(Result(rows)).axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["gpt seed 0", "gpt seed 1"]


def test_curves_over_a_scale():
    rows = [{"site": "x", "measure": "two_nn_curve", "value": 12.0 / k, "axis": "scale", "at": k} for k in (1, 2, 4, 8, 16, 32)]
    ax = scale_curves(Result([*rows, {"site": "x", "measure": "two_nn_curve", "value": 12.0}])).axes[0]
    assert ax.get_xscale() == "log"
    np.testing.assert_allclose(lines_of(ax)[0].get_ydata(), [12, 6, 3, 1.5, 0.75, 0.375])
    assert ax.get_xlabel() == "neighbors averaged over (scale)"


@pytest.mark.parametrize("theme", ["light", "dark", "page"])
def test_themes_set_paper_and_ink(profile, theme):
    figure = layer_curves(profile, theme=theme)
    assert figure.axes[0].xaxis.label.get_color() == THEMES[theme].ink
    assert figure.patch.get_alpha() == (0.0 if theme == "page" else 1.0)


def test_drawing_into_an_ax_takes_one_panel(profile, comparison, training):
    ax = Figure().subplots()
    assert layer_curves(profile, ax, measures="two_nn") is ax.figure
    assert profile.where(measure="two_nn").plot(ax=Figure().subplots()).axes[0].get_title(loc="left") == "two_nn"
    with pytest.raises(ResultError, match="one ax was given for 2 panels; choose one measure"):
        layer_curves(profile, ax)
    assert training.plot(ax=Figure().subplots()).axes[0].get_xscale() == "symlog"
    assert comparison.plot().axes[0].images


def test_what_cannot_be_drawn_says_why(profile, comparison, training):
    with pytest.raises(ResultError, match="there is nothing to draw: the result has 0 rows"):
        layer_curves(Result([]))
    with pytest.raises(ResultError, match="the result has no measure 'rankme'; it has two_nn, linear_cka"):
        layer_curves(profile, measures="rankme")
    with pytest.raises(ResultError, match="there is no comparison to draw: 0 rows have a second site"):
        site_heatmaps(profile)
    with pytest.raises(ResultError, match="none of the 6 rows has axis='step'"):
        trajectories(comparison)
    with pytest.raises(ResultError, match="none of the 20 rows has a numeric place"):
        scale_curves(training)
    with pytest.raises(ResultError, match="there is no theme 'drak'; closest: 'dark'"):
        layer_curves(profile, theme="drak")


def test_the_users_matplotlib_settings_are_left_alone(profile):
    before = dict(matplotlib.rcParams)
    layer_curves(profile)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.slow
def test_no_figure_loads_pyplot():
    code = "import inscape.plots, sys; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

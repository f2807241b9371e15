"""The dashboard of collapse, the map of heads and the map of massive activations show the numbers they were given."""

from __future__ import annotations

import numpy as np
import pytest

import inscape as ix
from inscape.errors import ResultError
from inscape.plots import collapse_dashboard, head_map, massive_map
from inscape.results import Result

SITES = ["blocks.0.resid_post", "blocks.1.resid_post", "blocks.2.resid_post"]


def rows(name: str, values: list[float]) -> list[dict[str, object]]:
    return [
        {"system": "a", "site": site, "measure": name, "value": v, "low": v / 2, "high": 2 * v}
        for site, v in zip(SITES, values, strict=True)
    ]


@pytest.fixture
def collapse() -> Result:
    shares = [*rows("variability_collapse", [0.9, 0.5, 0.1]), *rows("nc4_agreement", [0.1, 0.4, 0.9])]
    return Result([*rows("nc1", [3.0, 0.3, 0.0]), *rows("cdnv", [2.0, 0.4, 0.02]), *rows("nc2_etf", [0.8, 0.6, 0.1]), *shares])


def test_dashboard_puts_like_measures_into_one_panel(collapse: Result) -> None:
    figure = collapse_dashboard(collapse)
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.axison]
    assert titles == ["variability inside classes", "geometry of class means", "shares"]
    first, second, third = (ax for ax in figure.axes if ax.axison)
    assert first.get_yscale() == "log"
    drawn = {text.get_text(): line for text, line in zip(first.texts[:2], first.get_lines(), strict=True)}
    np.testing.assert_allclose(drawn["nc1"].get_ydata(), [3.0, 0.3, 0.02 / 3])  # 0 lies on the floor of the logarithmic panel
    np.testing.assert_allclose(second.get_lines()[0].get_ydata(), [0.8, 0.6, 0.1])
    assert third.get_ylim() == (-0.03, 1.03)
    assert third.get_xlabel() == "blocks.*.resid_post"


def test_plot_of_a_result_chooses(collapse: Result) -> None:
    assert len([ax for ax in collapse.plot().axes if ax.axison]) == 3
    assert collapse.where(measure="nc1").plot().axes[0].get_title(loc="left") == "nc1"


def test_dashboard_refuses_what_it_cannot_show(collapse: Result) -> None:
    with pytest.raises(ResultError, match="there is no measure of collapse to draw; the result has two_nn"):
        collapse_dashboard(Result([{"site": "a", "measure": "two_nn", "value": 1.0}]))
    other = [{**row, "system": "b"} for row in collapse.rows()]
    with pytest.raises(ResultError, match="one system and label, the result has 2 systems"):
        collapse_dashboard(Result([*collapse.rows(), *other]))


def test_heads_are_cells(profile: Result) -> None:
    values = np.array([[0.5, 1.5, 1.0], [2.0, 0.25, 1.25]])
    found = [
        {"site": f"blocks.{i}.attn_pattern|entropy", "measure": "attention_entropy", "axis": "head", "at": at, "value": value}
        for i, line in enumerate(values)
        for at, value in [(None, float(line.mean())), *enumerate(line.tolist())]
    ]
    figure = Result(found, settings={"verb": "measure"}).plot()
    ax = figure.axes[0]
    np.testing.assert_array_equal(ax.images[0].get_array(), values)
    assert ax.get_ylabel() == "blocks.*.attn_pattern"
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0", "1"]
    with pytest.raises(ResultError, match="there are no heads to draw"):
        head_map(profile)


def test_massive_activations_lie_at_their_units(profile: Result) -> None:
    X = np.random.default_rng(0).standard_normal((40, 20))
    Y = X.copy()
    X[3, 7], Y[5, 7], Y[0, 2] = 4000, 5000, -3000
    result = ix.measure({"blocks.0.mlp_out": X, "blocks.1.mlp_out": Y}, "massive_activations", interval=None)
    ax = result.plot().axes[0]
    points = np.concatenate([part.get_offsets() for part in ax.collections])
    assert {(7.0, 0.0), (7.0, 1.0), (2.0, 1.0)} <= {tuple(point) for point in points.tolist()}
    ringed = ax.collections[-1].get_offsets().tolist()
    assert sorted(map(tuple, ringed)) == [(2.0, 1.0), (7.0, 0.0), (7.0, 1.0)]
    assert "unit 7" in [text.get_text() for text in ax.texts]
    with pytest.raises(ResultError, match="says where an entry lies; measure 'massive_activations' of a store first"):
        massive_map(profile)


def test_report_shows_the_maps(collapse: Result, tmp_path) -> None:
    page = (tmp_path / "page.html").as_posix()
    ix.report(Result(collapse.rows(), settings={"verb": "measure"}), to=page)
    assert "Collapse of a by site" in (tmp_path / "page.html").read_text()

"""Bars of models."""

from __future__ import annotations

import numpy as np
import pytest

import inscape as ix
from inscape.errors import ResultError
from inscape.plots.models import model_bars
from inscape.results import Result

RNG = np.random.default_rng(0)
TRUTH = RNG.standard_normal((12, 5))
SUBJECTS = ix.rdm({f"s{i}": TRUTH @ RNG.standard_normal((5, 9)) + RNG.standard_normal((12, 9)) for i in range(5)})
MODELS = ix.rdm({"noise": RNG.standard_normal((12, 5)), "truth": TRUTH})


def test_bars_intervals_circles_and_the_ceiling_are_the_rows() -> None:
    result = ix.compare(MODELS, SUBJECTS, "rsa_corr", ceiling=True, draws=60)
    figure = result.plot()
    bars = figure.axes[0]
    heights = [patch.get_height() for patch in bars.patches if patch.get_width() == pytest.approx(0.68)]
    assert heights == pytest.approx([result.value(system="truth", axis=None), result.value(system="noise", axis=None)])
    assert [tick.get_text() for tick in bars.get_xticklabels()] == ["truth", "noise"]
    assert "rsa_corr" in bars.get_ylabel() and "over stimuli and subjects" in bars.get_ylabel()
    band = next(patch for patch in bars.patches if patch.get_alpha() == pytest.approx(0.22))
    assert band.get_extents() is not None
    assert len(figure.axes) == 2


def test_into_an_ax_of_ones_own_and_in_the_given_order() -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    result = ix.compare(MODELS, SUBJECTS, "rsa_corr", interval=None)
    assert model_bars(result, ax, sort=False) is ax.figure
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["noise", "truth"]


def test_nothing_to_draw_is_said() -> None:
    row = {"system": "m", "measure": "rsa_corr", "status": "degenerate", "reason": "all equal"}
    with pytest.raises(ResultError, match="all equal"):
        model_bars(Result([row], settings={"result": "rsa"}))

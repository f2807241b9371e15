"""The line through the best matches of a map, and the cells that could be the best as well."""

from __future__ import annotations

import numpy as np

import inscape as ix


def test_best_matches_are_joined_and_their_rivals_marked() -> None:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((120, 4))
    a = {"layers.0": shared, "layers.1": rng.standard_normal((120, 4))}
    twin = a["layers.1"] + 0.3 * rng.standard_normal((120, 4))
    b = {
        "layers.0": shared + 0.3 * rng.standard_normal((120, 4)),
        "layers.1": twin,
        "layers.2": twin + 0.01 * rng.standard_normal((120, 4)),
    }
    result = ix.compare(a, b, "linear_cka_debiased", interval=8)
    ax = result.plot().axes[0]
    best = [int(np.argmax([result.value(site=site, site_b=other) for other in b])) for site in a]
    lines = [line.get_xydata().tolist() for line in ax.lines if line.get_linestyle() == "-"]
    assert [[float(best[0]), 0.0], [float(best[1]), 1.0]] in lines
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    rival = ({1, 2} - {best[1]}).pop()
    assert [round(float(x)) for line in dots for x in line.get_xdata()] == [rival]
    plain = ix.compare(a, b, "linear_cka_debiased", interval=None).plot().axes[0]
    assert not [line for line in plain.lines if line.get_marker() == "o"]

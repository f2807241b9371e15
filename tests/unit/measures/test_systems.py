"""Many systems: every pair, and the matrix and map of their distances."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest

import inscape as ix
from inscape.errors import ResultError, StoreMismatchError
from inscape.measures.systems import distances, distances_left_out
from inscape.plots.systems import classical_mds


def stores(count: int = 4, sites: tuple[str, ...] = ("last",)) -> dict[str, ix.Store]:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((60, 4))
    return {
        f"s{i}": ix.Store.from_arrays(
            {site: shared @ rng.standard_normal((4, 7)) + 0.3 * i * rng.standard_normal((60, 7)) for site in sites}, system="same label"
        )
        for i in range(count)
    }


def test_every_pair_is_there_once_with_the_value_of_the_pair() -> None:
    systems = stores()
    result = ix.compare(systems, None, ["procrustes", "linear_cka_debiased"], interval=4, null="permute", draws=19)
    rows = [row for row in result.rows() if row["measure"] == "procrustes"]
    assert [(row["system"], row["system_b"]) for row in rows] == [(f"s{i}", f"s{j}") for i in range(4) for j in range(i + 1, 4)]
    one = next(row for row in rows if (row["system"], row["system_b"]) == ("s1", "s3"))
    assert one["value"] == pytest.approx(ix.measures.procrustes(systems["s1"]["last"], systems["s3"]["last"]), abs=1e-10)
    assert one["low"] < one["value"] < one["high"] and one["p_corrected"] >= one["p"]
    matrix, names = distances(result, "procrustes")
    assert names == ["s0", "s1", "s2", "s3"] and matrix[1, 3] == matrix[3, 1] == one["value"] and matrix[2, 2] == 0
    alike, _ = distances(result, "linear_cka_debiased")
    value = ix.measures.linear_cka_debiased(systems["s0"]["last"], systems["s1"]["last"])
    assert alike[0, 1] == pytest.approx(1 - value, abs=1e-10)


def test_sites_of_one_name_are_compared_with_each_other() -> None:
    result = ix.compare(stores(3, ("early", "late")), None, "linear_cka", interval=None)
    assert {(row["site"], row["site_b"]) for row in result.rows()} == {("early", "early"), ("late", "late")}
    early, late = (distances(result, site=site)[0] for site in ("early", "late"))
    np.testing.assert_allclose(distances(result)[0], (early + late) / 2)


def test_map_of_a_triangle_by_hand() -> None:
    points, share = classical_mds(np.array([[0.0, 3, 4], [3, 0, 5], [4, 5, 0]]))
    lengths = [math.dist(points[i], points[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert lengths == pytest.approx([3, 4, 5]) and share == pytest.approx(1)


def test_the_figure_has_tree_matrix_and_map() -> None:
    result = ix.compare(stores(5), None, "procrustes", interval=None)
    figure = result.plot()
    texts = {text.get_text() for ax in figure.axes for text in [*ax.texts, *ax.get_yticklabels()]}
    assert {"s0", "s4"} <= texts and result.kind == "systems"
    plt.close(figure)
    with pytest.raises(ResultError, match="at least 3 systems, the result has 2"):
        ix.compare(stores(2), None, "procrustes", interval=None).plot()


def test_what_is_no_group_of_systems_is_refused() -> None:
    with pytest.raises(StoreMismatchError, match="two of the 3 systems are called 'same label'"):
        ix.compare(list(stores(3).values()), None, "procrustes")
    with pytest.raises(ValueError, match="several systems are compared site by site"):
        ix.compare(stores(3), None, "procrustes", pairs="diagonal")
    with pytest.raises(StoreMismatchError, match="have no site of one name"):
        two = stores(2, ("a", "b"))
        ix.compare({"x": two["s0"], "y": stores(2, ("c", "d"))["s1"]}, None, "procrustes")


def test_distances_without_each_group_by_hand() -> None:
    systems = stores(3)
    result = ix.compare(systems, None, ["procrustes", "linear_cka_debiased"], interval=5)
    without = distances_left_out(result, "procrustes")
    groups = ix.stats.jackknife_groups(np.arange(60), 5, seed=0)
    rows = {name: store["last"].numpy() for name, store in systems.items()}
    assert without is not None and without.shape == (5, 3, 3)
    for g in range(5):
        expected = ix.measures.procrustes(rows["s0"][groups != g], rows["s2"][groups != g])
        assert without[g, 0, 2] == without[g, 2, 0] == pytest.approx(expected, abs=1e-9)
    alike = distances_left_out(result, "linear_cka_debiased")
    assert alike is not None and alike[2, 0, 1] == pytest.approx(
        1 - ix.measures.linear_cka_debiased(rows["s0"][groups != 2], rows["s1"][groups != 2]), abs=1e-9
    )
    assert distances_left_out(ix.compare(systems, None, "procrustes", interval=None)) is None


def test_the_figure_shows_intervals_branches_and_regions() -> None:
    rng = np.random.default_rng(1)
    near, far = rng.standard_normal((60, 4)), rng.standard_normal((60, 4))
    hidden = {"a1": near, "a2": near, "b1": far, "b2": far}
    systems = {name: ix.Store.from_arrays({"last": Z + 0.2 * rng.standard_normal((60, 4))}) for name, Z in hidden.items()}
    result = ix.compare(systems, None, "procrustes", interval=6)
    tree, table, plane, _ = result.plot().axes
    row = result.where(system="a1", system_b="a2").rows()[0]
    cell = f"{row['value']:.2f}\n±{(row['high'] - row['low']) / 2:.2f}".replace("0.", ".")
    cells = [text.get_text() for text in table.texts]
    assert sum("\n±" in text for text in cells) == 12 and cells.count(cell) == 2
    assert sorted(text.get_text() for text in tree.texts if text.get_text().endswith("%")) == ["100%", "100%"]
    assert len(plane.patches) == 4

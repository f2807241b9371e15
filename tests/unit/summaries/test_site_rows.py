"""Rows of a site as the summaries read them, against NumPy."""

from __future__ import annotations

import numpy as np
import torch

from inscape.store import Store
from inscape.summaries import SiteRows


def test_rows_are_those_of_numpy_in_any_order_held_or_not():
    values = np.random.default_rng(0).standard_normal((20, 3))
    view = Store.from_arrays({"x": values})["x"]
    chosen = np.array([7, 2, 2, 19, 0])
    rows = SiteRows(view)
    assert not rows.held
    np.testing.assert_array_equal(rows.take(chosen).numpy(), values[chosen])
    rows.load()
    assert rows.held
    np.testing.assert_array_equal(rows.take(chosen).numpy(), values[chosen])
    np.testing.assert_array_equal(rows.all().numpy(), values)
    assert rows.nbytes == values.nbytes
    rows.release()
    assert not rows.held


def test_a_choice_of_rows_stands_for_the_site():
    values = np.random.default_rng(1).standard_normal((10, 2))
    order = np.array([9, 4, 5])
    rows = SiteRows(Store.from_arrays({"x": values})["x"], order)
    np.testing.assert_array_equal(rows.all().numpy(), values[order])
    np.testing.assert_array_equal(rows.take(np.array([2, 0])).numpy(), values[[5, 9]])
    np.testing.assert_array_equal(rows.sources, order)


def test_precise_rows_are_fp64():
    values = np.random.default_rng(2).standard_normal((6, 2)).astype(np.float32)
    rows = SiteRows(Store.from_arrays({"x": values})["x"], precise=True)
    assert rows.all().dtype == torch.float64
    np.testing.assert_array_equal(rows.all().numpy(), values.astype(np.float64))

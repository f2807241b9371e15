"""Odd pairs through every pair measure at once: a finite value, or a row that says why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import inscape as ix

NAMES = [one.name for one in ix.measures.all_measures() if one.arity == 2 and not one.repeated]

Pair = tuple[np.ndarray, np.ndarray]


def gaussian(n: int, p: int = 5, q: int = 5, seed: int = 0) -> Pair:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    return X, X @ rng.standard_normal((p, q)) + rng.standard_normal((n, q))


def constant_columns() -> Pair:
    X, Y = gaussian(30)
    X[:, 1:3], Y[:, 0] = 2.5, 0.0
    return X, Y


def spoiled(side: int) -> Pair:
    pair = gaussian(30)
    pair[side][4, 2] = math.nan
    return pair


PAIRS: dict[str, Callable[[], Pair]] = {
    "constant columns": constant_columns,
    "duplicate rows": lambda: (gaussian(12)[0].repeat(3, 0), gaussian(12)[1].repeat(3, 0)),
    "duplicate units": lambda: (gaussian(30)[0].repeat(2, 1), gaussian(30)[1].repeat(2, 1)),
    "ties": lambda: (gaussian(30)[0].round(), gaussian(30)[1].round()),
    "rank one": lambda: (np.outer(gaussian(30)[0][:, 0], np.arange(1.0, 6)), np.outer(gaussian(30)[1][:, 0], np.arange(1.0, 6))),
    "one side rank one": lambda: (gaussian(30)[0], np.outer(gaussian(30)[1][:, 0], np.arange(1.0, 6))),
    "one side constant": lambda: (gaussian(30)[0], np.ones((30, 5))),
    "both constant": lambda: (np.full((30, 5), 7.0), np.ones((30, 5))),
    "zeros": lambda: (np.zeros((30, 5)), gaussian(30)[1]),
    "four rows": lambda: gaussian(4),
    "four rows of one unit": lambda: gaussian(4, 1, 1),
    "one unit": lambda: gaussian(30, 1, 1),
    "four rows in ties": lambda: (np.array([[0.0, 1], [0, 1], [1, 0], [1, 0]]), np.array([[0.0, 1], [1, 0], [0, 1], [1, 0]])),
    "tiny numbers": lambda: (gaussian(30)[0] * 1e-150, gaussian(30)[1]),
    "far from zero": lambda: (gaussian(30)[0] + 1e9, gaussian(30)[1]),
    "NaN on the left": lambda: spoiled(0),
    "NaN on the right": lambda: spoiled(1),
}


@pytest.mark.filterwarnings("ignore::inscape.errors.InscapeWarning")
@pytest.mark.parametrize("kind", PAIRS)
def test_every_pair_measure_gives_a_value_or_says_why_not(kind: str) -> None:
    X, Y = PAIRS[kind]()
    rows = ix.compare(ix.Store.from_arrays({"x": X}), ix.Store.from_arrays({"y": Y}), NAMES, interval=None).rows()
    assert sorted(row["measure"] for row in rows) == sorted(NAMES)
    for row in rows:
        if row["value"] is None:
            assert row["status"] in ("degenerate", "too_few"), row
            assert row["reason"], row
        else:
            assert math.isfinite(row["value"]), row
    if kind.startswith("NaN"):
        assert all(row["value"] is None for row in rows)
    elif kind in ("duplicate rows", "duplicate units", "ties"):
        assert all(row["value"] is not None for row in rows if row["measure"] in ("linear_cka", "procrustes", "cca_mean", "ridge_r2"))

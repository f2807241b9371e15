"""What a method of mapping claims about itself, tested for every method that is registered."""

from __future__ import annotations

import numpy as np
import pytest

import inscape as ix
from inscape import maps

RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 6)) * np.linspace(1, 3, 6) + 2
METHODS = maps.registered()
MADE = {
    "rotation": X @ np.linalg.qr(RNG.standard_normal((6, 6)))[0] + 1,
    "linear": X @ RNG.standard_normal((6, 4)) - 1,
    "permutation": X[:, RNG.permutation(6)] + 1,
}
each = pytest.mark.parametrize("name", METHODS)


@each
@pytest.mark.parametrize("kind", MADE)
def test_it_finds_exactly_the_maps_that_it_claims(name: str, kind: str) -> None:
    fitted = ix.align(X, MADE[kind], name)
    value = fitted.score().value(measure="map_r2")
    if kind in METHODS[name].exact:
        assert value == pytest.approx(1, abs=1e-9)
        if kind != "linear":
            assert np.allclose(fitted.inverse(fitted.transform(X)), X, atol=1e-8)
    elif name in ("orthogonal", "permutation"):
        assert value < 1 - 1e-3


@each
def test_an_offset_of_either_side_changes_nothing(name: str) -> None:
    plain, moved = ix.align(X, MADE["rotation"], name), ix.align(X + 1e4, MADE["rotation"] - 1e4, name)
    assert moved.score().value(measure="map_r2") == pytest.approx(plain.score().value(measure="map_r2"), abs=1e-7)


@each
def test_it_says_what_it_is_and_repeats_itself(name: str) -> None:
    method = METHODS[name]
    assert method.source and method.what and method.fit.__doc__ and "Source:" in method.fit.__doc__
    first, second = (ix.align(X, MADE["linear"], name, seed=5) for _ in range(2))
    assert np.array_equal(first.tensors["weight"], second.tensors["weight"])
    assert first.d_a == 6 and first.d_b == 4 and tuple(first.tensors["back"].shape) == (4, 6)


@each
def test_independent_rows_are_found_no_more_often_than_chance(name: str) -> None:
    result = ix.align(X, RNG.standard_normal((120, 4)), name, holdout=0.5).retrieval(10)
    row = result.rows()[0]
    assert abs(row["value"] - row["null_mean"]) < 0.15

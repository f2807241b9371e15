"""Moments of directions, and landmarks: against NumPy, and parts against the whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from inscape.errors import StoreMismatchError, TooFewStimuliError
from inscape.summaries import DirectionMoments, Landmarks

X = np.random.default_rng(0).standard_normal((50, 6)) + 0.3
UNITS = X / np.linalg.norm(X, axis=1, keepdims=True)


def test_second_moments_of_directions_add_and_subtract() -> None:
    expected = np.linalg.eigvalsh(UNITS.T @ UNITS / 50)[::-1]
    data = np.concatenate([X[:20], np.zeros((2, 6)), X[20:]])
    whole = DirectionMoments.of(data)
    parts = DirectionMoments.of(data[:7]).merge(DirectionMoments.of(data[7:30])).merge(DirectionMoments().update(data[30:]))
    for found in (whole, parts):
        assert found.eigenvalues.numpy() == pytest.approx(expected, abs=1e-12)
        assert (found.n, found.d, found.zero_rows) == (50, 6, 2)
    left = whole.minus(DirectionMoments.of(data[:22]))
    assert left.eigenvalues.numpy() == pytest.approx(np.linalg.eigvalsh(UNITS[20:].T @ UNITS[20:] / 30)[::-1], abs=1e-12)
    assert left.zero_rows == 0 and left.nbytes > 0
    wide = DirectionMoments.of(X[:4]).eigenvalues.numpy()
    assert wide[:4] == pytest.approx(np.linalg.eigvalsh(UNITS[:4] @ UNITS[:4].T / 4)[::-1], abs=1e-12)
    with pytest.raises(TooFewStimuliError, match="none of 3 rows has a direction"):
        _ = DirectionMoments.of(np.zeros((3, 2))).eigenvalues
    with pytest.raises(StoreMismatchError, match="moments of 6 and of 3 units"):
        whole.merge(DirectionMoments.of(X[:, :3]))


def test_landmarks_keep_exact_distances() -> None:
    marks = Landmarks.of(X + 1e4, count=12)
    chosen = X[marks.ids]
    assert marks.distances.numpy() == pytest.approx(cdist(chosen, chosen), abs=1e-10)
    assert marks.deaths == pytest.approx(np.sort(minimum_spanning_tree(cdist(chosen, chosen)).data), abs=1e-10)
    first = ((X - X.mean(0)) ** 2).sum(1).argmax()
    assert marks.ids[0] == first
    assert marks.ids[1] == cdist(X[[first]], X).argmax()

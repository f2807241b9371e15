"""Topology against points on a line, SciPy's spanning trees, a square whose loop is known, and the memory that is asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

import inscape as ix
from inscape.errors import DegenerateInputError, MemoryBudgetError, MissingExtraError
from inscape.summaries import Landmarks

LINE = np.array([[0.0], [1], [2], [6], [9]])


def test_pieces_on_a_line_by_hand() -> None:
    curve = ix.measures.persistence_h0(LINE)
    assert curve.value == 9
    assert curve.values == (4, 3, 1, 1)
    assert curve.at == (0, 0, 0, 0)
    p = np.array([4, 3, 1, 1]) / 9
    assert ix.measures.persistence_entropy(LINE) == pytest.approx(-(p * np.log(p)).sum(), abs=1e-12)
    betti = ix.measures.betti_curve(LINE)
    assert betti.value == pytest.approx(9 / 16, abs=1e-12)  # the mean of 4, 3, 1, 1 over 4
    assert betti.values[0] == 5 and betti.values[-1] == 1
    assert [value for at, value in zip(betti.at, betti.values, strict=True) if 0.3 < at < 0.7] == [3] * 12


def test_pieces_are_the_spanning_tree_and_copies_have_no_length() -> None:
    X = np.random.default_rng(0).standard_normal((60, 5))
    tree = minimum_spanning_tree(cdist(X, X)).data
    assert ix.measures.persistence_h0(X).value == pytest.approx(tree.sum(), rel=1e-12)
    assert ix.measures.persistence_h0(np.concatenate([X, X])).value == pytest.approx(tree.sum(), rel=1e-12)
    assert ix.measures.persistence_h0(np.ones((6, 2))).value == 0
    for name in ("persistence_entropy", "betti_curve"):
        with pytest.raises(DegenerateInputError, match=f"{name}.*6 equal rows"):
            ix.measures.get(name)(np.ones((6, 2)))


def test_the_loop_of_a_square_by_hand() -> None:
    square = 3 * np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    curve = ix.measures.persistence_h1(square)
    assert curve.at == pytest.approx((3,)) and curve.values == pytest.approx((3 * math.sqrt(2),))
    assert curve.value == pytest.approx(3 * (math.sqrt(2) - 1), rel=1e-12)
    assert ix.measures.persistence_h1(LINE).value == 0
    assert ix.measures.persistence_h1(1e-9 * square).value == pytest.approx(3e-9 * (math.sqrt(2) - 1), rel=1e-9)


def test_loops_ask_for_memory_before_they_start() -> None:
    X = np.random.default_rng(0).standard_normal((300, 3))
    with pytest.raises(MemoryBudgetError, match=r"loops of 300 landmarks may take 15\.3 MB, above memory='2MB'; use landmarks=108"):
        ix.measures.persistence_h1(X, landmarks=300, memory="2MB")


def test_loops_say_which_extra_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"persistence_h1.*'gudhi'.*pip install 'inscape\[topology\]'"):
        ix.measures.persistence_h1(LINE)


def test_landmarks_lie_far_apart() -> None:
    corners = np.array([[0.0, 0], [10, 0], [0, 10.5], [11, 11]])
    X = np.concatenate([corners, 5 + np.random.default_rng(0).random((40, 2))])
    assert sorted(Landmarks.of(X, count=4).ids.tolist()) == [0, 1, 2, 3]
    assert Landmarks.of(X, count=4).ids[0] == ((X - X.mean(0)) ** 2).sum(1).argmax()
    assert Landmarks.of(X, count=50).ids.tolist() == list(range(44))
    assert ix.measures.persistence_h0(X, landmarks=4).value == pytest.approx(minimum_spanning_tree(cdist(corners, corners)).sum())
    with pytest.raises(DegenerateInputError, match="1 landmarks have no shape; at least 2"):
        ix.measures.persistence_h0(X, landmarks=1)

"""Measures of collapse against their definitions in NumPy, and against cases whose value is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeWarning, StoreMismatchError, TooFewStimuliError
from inscape.summaries import ClassMoments

NAMES = ["nc1", "nc1_trace", "nc2_equinorm", "nc2_equiangular", "nc2_max_angle", "nc2_etf", "gnc2", "cdnv", "variability_collapse"]


def labeled(sizes: tuple[int, ...] = (30, 12, 7, 21, 5), d: int = 8, seed: int = 0, spread: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Classes of different size about random means."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return rng.standard_normal((len(sizes), d))[labels] + spread * rng.standard_normal((len(labels), d)) + 3, labels


def by_definition(X: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The formulas, row by row and pair by pair."""
    names, n = np.unique(labels), len(X)
    C = len(names)
    means = np.stack([X[labels == one].mean(0) for one in names])
    centered = means - means.mean(0)
    apart = X - means[np.searchsorted(names, labels)]
    within, between = apart.T @ apart / n, centered.T @ centered / C
    length = np.linalg.norm(centered, axis=1)
    units = centered / length[:, None]
    i, j = np.triu_indices(C, 1)
    cosines = (units @ units.T)[i, j]
    gram = centered @ centered.T
    etf = (np.eye(C) - 1 / C) / math.sqrt(C - 1)
    variance = np.array([np.square(apart[labels == one]).sum(1).mean() for one in names])
    total = np.cov(X.T, bias=True)
    explained = total - within  # the counts weigh it
    kernel = -np.log(np.linalg.norm(units[i] - units[j], axis=1))
    return {
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-12)) / C,
        "nc1_trace": np.trace(within) / np.trace(between),
        "nc2_equinorm": length.std() / length.mean(),
        "nc2_equiangular": cosines.std(),
        "nc2_max_angle": np.abs(cosines + 1 / (C - 1)).mean(),
        "nc2_etf": np.linalg.norm(gram / np.linalg.norm(gram) - etf),
        "gnc2": kernel.std() / abs(kernel.mean()),
        "cdnv": ((variance[i] + variance[j]) / (2 * np.square(means[i] - means[j]).sum(1))).mean(),
        "variability_collapse": 1 - np.trace(np.linalg.solve(total, explained)) / np.linalg.matrix_rank(explained, tol=1e-9),
    }


@pytest.mark.parametrize("name", NAMES)
def test_unbalanced_classes_follow_the_definitions(name: str) -> None:
    X, labels = labeled()
    assert ix.measures.get(name)(X, labels) == pytest.approx(by_definition(X, labels)[name], rel=1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [10, 30])  # 60 classes of 6 units go by the smaller side
@pytest.mark.filterwarnings("ignore:.*cannot form a simplex:inscape.errors.InscapeWarning")
def test_more_classes_than_units_follow_the_definitions(name: str, count: int) -> None:
    X, labels = labeled((4, 3) * count, d=6, seed=1)
    assert ix.measures.get(name)(X, labels) == pytest.approx(by_definition(X, labels)[name], rel=1e-9)


def test_more_classes_than_units_are_told_of_by_the_distance_to_a_simplex() -> None:
    X, labels = labeled((4, 3) * 10, d=6, seed=1)
    with pytest.warns(InscapeWarning, match="20 classes in 6 units cannot form a simplex"):
        value = ix.measures.nc2_etf(X, labels)
    assert value > math.sqrt(2 - 2 * math.sqrt(6 / 19))  # the bound of the docstring


@pytest.mark.parametrize("name", NAMES)
def test_classes_of_one_row_are_left_out_and_counted(name: str) -> None:
    X, labels = labeled()
    extra = np.random.default_rng(5).standard_normal((2, X.shape[1]))
    with pytest.warns(InscapeWarning, match="2 of 7 classes have one row and are left out; 5 classes count"):
        value = ix.measures.get(name)(np.vstack([X, extra]), np.append(labels, [90, 91]))
    assert value == pytest.approx(ix.measures.get(name)(X, labels), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_single_rows_alone_have_no_collapse(name: str) -> None:
    X, _ = labeled()
    with pytest.raises(DegenerateInputError, match=rf"{name}: 0 of 75 classes have at least two rows \(75 rows in all\)"):
        ix.measures.get(name)(X, np.arange(75))


def test_a_simplex_has_none_of_what_collapse_takes_away() -> None:
    X = np.repeat(np.eye(4)[:, [2, 0, 3, 1]] * 7 + 1e3, 5, axis=0)
    labels = np.repeat(["w", "x", "y", "z"], 5)
    for name in NAMES:
        assert abs(ix.measures.get(name)(X, labels)) < 1e-7, name


def test_two_points_by_hand() -> None:
    """Classes {0, 2} and {10, 12}: Σ_W = 1, class means 1 and 11 at distance 5 from their center, total variance 26."""
    X, labels = np.array([[0.0], [2], [10], [12]]), [0, 0, 1, 1]
    known = {"nc1": 1 / 25 / 2, "nc1_trace": 1 / 25, "cdnv": 1 / 100, "variability_collapse": 1 - 25 / 26, "nc2_equinorm": 0, "nc2_etf": 0}
    for name, value in known.items():
        assert ix.measures.get(name)(X, labels) == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("condition", [10.0, 1e3])
def test_variability_collapse_ignores_invertible_maps(condition: float) -> None:
    X, labels = labeled((60, 40, 30, 50), d=12)
    before = ix.measures.variability_collapse(X, labels)
    rng = np.random.default_rng(3)
    for _ in range(10):
        left, right = (np.linalg.qr(rng.standard_normal((12, 12)))[0] for _ in range(2))
        after = ix.measures.variability_collapse(X @ (left * np.geomspace(1, condition, 12)) @ right, labels)
        assert abs(after - before) <= 1e-8


def test_variability_collapse_refuses_rows_that_any_labels_explain() -> None:
    X = np.random.default_rng(0).standard_normal((20, 40))
    with pytest.raises(TooFewStimuliError, match="20 rows span 19 directions, so labels explain all of them by chance"):
        ix.measures.variability_collapse(X, np.arange(20) % 4)


def test_equal_class_means_are_counted_and_left_out_of_pairs() -> None:
    X = np.array([[-1.0], [1], [-2], [2], [9], [11]])
    with pytest.warns(InscapeWarning, match="1 of 3 pairs of classes have equal means and are left out"):
        value = ix.measures.cdnv(X, [0, 0, 1, 1, 2, 2])
    assert value == pytest.approx(((1 + 1) / 200 + (4 + 1) / 200) / 2, abs=1e-12)  # variances 1, 4, 1; both others 10 away
    with pytest.raises(DegenerateInputError, match="the means of the 2 classes are all equal"):
        ix.measures.cdnv(X[:4], [0, 0, 1, 1])


def test_linguistic_collapse_by_hand() -> None:
    """Means 0, 10, 30; variances 1, 1, 4: pairs (1+1)/200, (1+4)/1800, (1+4)/800."""
    X = np.array([[-1.0], [1], [9], [11], [28], [32], [28], [32]])
    found = ix.measures.linguistic_collapse(X, [0, 0, 1, 1, 2, 2, 2, 2])
    each = [(1 / 100 + 1 / 360) / 2, (1 / 100 + 1 / 160) / 2, (1 / 360 + 1 / 160) / 2]
    assert found.at == (2, 4)
    assert found.axis == "rows"
    assert found.values == pytest.approx([np.median(each[:2]), each[2]], rel=1e-12)
    assert found.value == pytest.approx(np.median(each), rel=1e-12)


@pytest.mark.slow
def test_many_classes_in_tiles() -> None:
    rng = np.random.default_rng(0)
    C, d = 4500, 12  # three tiles a side
    labels = np.repeat(np.arange(C), 3)
    X = (rng.standard_normal((C, d))[labels] + 0.4 * rng.standard_normal((3 * C, d))).astype(np.float64)
    means = X.reshape(C, 3, d).mean(1)
    variance = np.square(X.reshape(C, 3, d) - means[:, None]).sum(2).mean(1)
    squares = np.square(means).sum(1)
    distance = squares[:, None] + squares - 2 * means @ means.T
    np.fill_diagonal(distance, np.inf)
    ratio = (variance[:, None] + variance) / (2 * distance)
    assert ix.measures.cdnv(X, labels) == pytest.approx(ratio.sum() / (C * (C - 1)), rel=1e-9)
    assert ix.measures.linguistic_collapse(X, labels).value == pytest.approx(np.median(ratio.sum(1) / (C - 1)), rel=1e-9)


# -- with a classifier -------------------------------------------------------------------------------------------------------------


def test_duality_and_agreement_by_definition() -> None:
    X, labels = labeled()
    rng = np.random.default_rng(1)
    W, b = rng.standard_normal((5, 8)), rng.standard_normal(5)
    means = np.stack([X[labels == one].mean(0) for one in range(5)])
    M = means - means.mean(0)
    expected = np.linalg.norm(W / np.linalg.norm(W) - M / np.linalg.norm(M))
    assert ix.measures.nc3_duality(X, labels, weights=W) == pytest.approx(expected, rel=1e-12)
    decided, nearest = (X @ W.T + b).argmax(1), np.square(X[:, None] - means).sum(2).argmin(1)
    assert ix.measures.nc4_agreement(X, labels, weights=(W, b)) == pytest.approx((decided == nearest).mean(), abs=1e-12)


def test_every_way_to_give_a_layer_means_the_same() -> None:
    X, labels = labeled()
    layer = torch.nn.Linear(8, 5).double()
    pair = (layer.weight, layer.bias)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8).double(), torch.nn.ReLU(), layer)
    values = [ix.measures.nc4_agreement(X, labels, weights=one) for one in (pair, layer, model, ix.load(model))]
    assert len(set(values)) == 1
    names = np.array(["a", "b", "c", "d", "e"])[labels]
    assert ix.measures.nc4_agreement(X, names, weights=pair) == values[0]


def test_layers_that_do_not_fit_are_refused() -> None:
    X, labels = labeled()
    for weights, kind, text in [
        (np.ones((5, 7)), StoreMismatchError, r"the weights have shape \(5, 7\), so they read 7 units, but the rows have 8"),
        (np.ones((4, 8)), StoreMismatchError, "labels go from 0 to 4, but the weights have outputs 0 to 3"),
        ((np.ones((5, 8)), np.ones(4)), StoreMismatchError, r"a bias of shape \(4,\) does not fit weights of shape \(5, 8\)"),
        (np.zeros((5, 8)), DegenerateInputError, "the weights of the 5 classes are all zero"),
        (torch.nn.ReLU(), DegenerateInputError, "ReLU has no linear layer"),
    ]:
        with pytest.raises(kind, match=text):
            ix.measures.nc3_duality(X, labels, weights=weights)
    with pytest.raises(StoreMismatchError, match="5 classes by name for 6 outputs"):
        ix.measures.nc3_duality(X, np.array(list("abcde"))[labels], weights=np.ones((6, 8)))
    with pytest.raises(TypeError, match="nc3_duality needs weights"):
        ix.measures.nc3_duality(X, labels)
    with pytest.raises(TypeError, match="nc1 takes no weights"):
        ix.measures.nc1(X, labels, weights=np.ones((5, 8)))


def test_classes_may_be_some_of_the_outputs() -> None:
    X, labels = labeled()
    W = np.random.default_rng(2).standard_normal((9, 8))
    moved = np.array([8, 0, 3, 4, 7])[labels]
    chosen = W[[8, 0, 3, 4, 7]]
    assert ix.measures.nc3_duality(X, moved, weights=W) == pytest.approx(ix.measures.nc3_duality(X, labels, weights=chosen), rel=1e-12)


# -- in the verb -------------------------------------------------------------------------------------------------------------------


def test_verb_gives_what_the_functions_give_with_intervals() -> None:
    X, labels = labeled((30, 30, 30, 30), d=6)
    layer = torch.nn.Linear(6, 4).double()
    names = [*NAMES, "nc3_duality", "nc4_agreement", "linguistic_collapse"]
    result = ix.measure({"a": X, "b": X @ X.T @ X / 1e3}, names, labels=labels, weights={"a": layer, "b": layer})
    for name in names:
        rest = {"weights": layer} if name.startswith(("nc3", "nc4")) else {}
        assert result.value(site="a", measure=name) == pytest.approx(float(ix.measures.get(name)(X, labels, **rest)), rel=1e-9), name
        row = next(row for row in result.where(site="a", measure=name).rows() if row["at"] is None)
        assert row["low"] <= row["value"] <= row["high"], name


def test_verb_says_where_weights_are_missing() -> None:
    X, labels = labeled()
    result = ix.measure({"a": X, "b": X[:, :7]}, ["nc1", "nc3_duality"], labels=labels, weights={"b": np.ones((5, 8))}, interval=None)
    rows = {(row["site"], row["measure"]): row for row in result.rows()}
    assert rows["a", "nc1"]["status"] == "ok"
    assert rows["a", "nc3_duality"]["status"] == "failed"
    assert "needs the layer that reads the rows: pass weights=" in rows["a", "nc3_duality"]["reason"]
    assert rows["b", "nc3_duality"]["status"] == "mismatch"


def test_one_pass_serves_measures_with_and_without_scatter(monkeypatch: pytest.MonkeyPatch) -> None:
    X, labels = labeled()
    seen: list[int] = []
    update = ClassMoments.update
    monkeypatch.setattr(ClassMoments, "update", lambda self, X, labels: seen.append(len(X)) or update(self, X, labels))
    ix.measure(X, ["nc1", "cdnv", "nc1_trace", "class_separation", "variability_collapse"], labels=labels, interval=None)
    assert seen == [75]


# -- out of distribution -----------------------------------------------------------------------------------------------------------


def test_neco_by_definition() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3)) @ rng.standard_normal((3, 9)) + 0.3 * rng.standard_normal((300, 9)) + 2
    Y = rng.standard_normal((200, 9)) + 2
    mean, spread = X.mean(0), X.std(0)
    standard = (X - mean) / spread
    values, vectors = np.linalg.eigh(np.cov(standard.T))
    shares = np.cumsum(values[::-1]) / values.sum()
    P = vectors[:, ::-1][:, : int((shares >= 0.8).argmax()) + 1]
    known, other = (np.linalg.norm(s @ P, axis=1) / np.linalg.norm(s, axis=1) for s in (standard, (Y - mean) / spread))
    area = (known[:, None] > other).mean()
    assert ix.measures.neco(X, Y, share=0.8) == pytest.approx(area, abs=1e-12)
    assert ix.measures.neco(X, X) == pytest.approx(0.5, abs=1e-12)
    with pytest.raises(DegenerateInputError, match="share=1.5 is no share of the variance"):
        ix.measures.neco(X, Y, share=1.5)
    with pytest.raises(DegenerateInputError, match="X has 9 units and Y 4"):
        ix.measures.neco(X, Y[:, :4])
    result = ix.compare({"h": X}, {"h": Y}, "neco")
    assert result.value() == pytest.approx(ix.measures.neco(X, Y), abs=1e-12)

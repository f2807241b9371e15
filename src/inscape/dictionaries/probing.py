"""Whether few features tell labels: k-sparse probing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.dictionaries.codes import Codes
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.intervals import row_of
from inscape.errors import DegenerateInputError, StoreMismatchError
from inscape.results import Result
from inscape.store import view_of

# A small pull toward 0, in units of the standardized inputs, keeps separable classes from infinite weights.
_RIDGE = 1e-3


def sparse_probing(
    dictionary: Dictionary, X: Any, labels: Any, *, k: Sequence[int] = (1, 2, 5), test: float = 0.2, seed: int = 0
) -> Result:
    """How well k features tell each class from the others, beside k units and beside all units.

    For each class the k features with the largest difference of means between its rows and the rest (in the training part) go into a
    logistic regression; its accuracy on the test part, where classes weigh alike (balanced), is averaged over classes.

    Args:
        dictionary: a fitted dictionary.
        X: view or array, [n, d].
        labels: a column of the stimuli, or one label per row or stimulus.
        k: numbers of features.
        test: share of stimuli in the test part.
        seed: seed of the split; rows of one stimulus stay on one side.

    Returns:
        A `Result` with `probe_accuracy`, one row for each k and kind ("features", "units") and one for "all units"; chance is 0.5.

    Raises:
        DegenerateInputError: fewer than two classes, or a class that is missing from one of the two parts.

    Example:
        >>> sparse_probing(dictionary, X, labels, k=[1]).unique("kind")
        ['features', 'units', 'all units']
    """
    view = view_of(X)
    values = view.column(labels) if isinstance(labels, str) else np.asarray(labels)
    if len(values) == view.store.stimuli.num_rows != view.n:
        values = values[view.stimulus]
    if len(values) != view.n:
        raise StoreMismatchError(f"labels has {len(values)} entries for {view.n} rows; give one per row or per stimulus")
    classes, y = np.unique(values.astype(str), return_inverse=True)
    if len(classes) < 2:
        raise DegenerateInputError(f"all {view.n} rows have the label {str(classes[0])!r}; at least two classes are needed")
    sources, source = np.unique(view.stimulus, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(sources))
    held = np.isin(source, order[: max(1, round(test * len(sources)))])
    for index, name in enumerate(classes):
        if not (y[held] == index).any() or not (y[~held] == index).any():
            raise DegenerateInputError(
                f"label {str(name)!r} is missing from the training or the test part; give more stimuli or leave rare labels out"
            )
    rows, codes = view.torch().double(), dictionary.encode(view)
    units = rows.numpy()
    found: list[dict[str, Any]] = []
    cases: list[tuple[str, int | None]] = [(kind, size) for size in k for kind in ("features", "units")]
    for kind, size in [*cases, ("all units", None)]:
        right: list[np.ndarray] = []
        for index in range(len(classes)):
            positive = y == index
            inputs = _chosen(codes if kind == "features" else units, positive, ~held, size)
            weights = logistic(inputs[~held], positive[~held])
            guess = inputs[held] @ weights[:-1] + weights[-1] > 0
            hit = (guess == positive[held]).astype(float)
            # Sums from which balanced accuracy follows, for each test source.
            right.append(np.stack([hit * positive[held], positive[held], hit * ~positive[held], ~positive[held]], 1).astype(float))
        sums = np.concatenate(right, 1)

        def balanced(s: np.ndarray) -> float:
            parts = s.reshape(-1, 4)
            return (
                float((parts[:, 0] / parts[:, 1] + parts[:, 2] / parts[:, 3]).mean() / 2) if bool((parts[:, (1, 3)] > 0).all()) else np.nan
            )

        row = row_of("probe_accuracy", balanced, sums, sources=source[held], bounds=(0, 1), seed=seed)
        found.append({"kind": kind, "axis": "k" if size else None, "at": size, "n": int(held.sum()), "d": view.d, **row})
    shared = {"system": view.system, "site": view.site, "label": repr(dictionary.recipe)}
    settings = {"verb": "dictionaries.sparse_probing", "classes": classes.tolist(), "test": test, "seed": seed}
    return Result([{**shared, **row} for row in found], settings=settings)


def _chosen(inputs: Any, positive: np.ndarray, train: np.ndarray, size: int | None) -> np.ndarray:
    """The columns that differ most between the class and the rest, [n, size]."""
    if size is None:
        return inputs
    if isinstance(inputs, Codes):
        means = [_mean(inputs, train & side) for side in (positive, ~positive)]
    else:
        scale = inputs[train].std(0) + 1e-12
        means = [torch.from_numpy(inputs[train & side].mean(0) / scale) for side in (positive, ~positive)]
    top = (means[0] - means[1]).abs().topk(min(size, len(means[0]))).indices
    if not isinstance(inputs, Codes):
        return inputs[:, top.numpy()]
    columns = np.zeros((inputs.n, len(top)))
    for place, feature in enumerate(top.tolist()):
        rows, strengths = inputs.feature(feature)
        columns[rows.numpy(), place] = strengths.double().numpy()
    return columns


def _mean(codes: Codes, rows: np.ndarray) -> Tensor:
    kept = torch.from_numpy(rows)[codes.rows]
    sums = torch.zeros(codes.width, dtype=torch.float64).index_add_(0, codes.indices[kept], codes.values[kept].double())
    return sums / rows.sum()


def logistic(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights and offset [p + 1] of a logistic regression with balanced classes and a small ridge, by Newton's method."""
    center, scale = X.mean(0), X.std(0) + 1e-12
    Z = np.concatenate([(X - center) / scale, np.ones((len(X), 1))], 1)
    weight = np.where(y, 0.5 / y.mean(), 0.5 / (1 - y.mean())) / len(y)
    pull = np.full(Z.shape[1], _RIDGE)
    pull[-1] = 0.0
    w = np.zeros(Z.shape[1])

    def loss(w: np.ndarray) -> float:
        margin = Z @ w
        return float((weight * (np.logaddexp(0, margin) - y * margin)).sum() + 0.5 * (pull * w * w).sum())

    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(Z @ w, -500, 500)))
        slope = Z.T @ (weight * (p - y)) + pull * w
        if np.abs(slope).max() < 1e-9:
            break
        curve = (Z * (weight * p * (1 - p))[:, None]).T @ Z + np.diag(pull + 1e-12)
        step, size, now = np.linalg.solve(curve, slope), 1.0, loss(w)
        while loss(w - size * step) > now and size > 1e-6:
            size /= 2
        w = w - size * step
    w[:-1] /= scale
    w[-1] -= float(w[:-1] @ center)
    return w

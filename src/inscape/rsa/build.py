"""`rdm`: dissimilarity matrices of views, stores and arrays, of balanced and unbalanced designs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from inscape.arrays import as_rows
from inscape.errors import DegenerateInputError, StoreMismatchError, TooFewStimuliError, nearest
from inscape.rsa.crossed import check_folds, crossed_poisson, crossnobis, fold_means, poisson
from inscape.rsa.noise import KINDS, Whitening, of_covariance, of_residuals, residual_rows
from inscape.rsa.rdms import ID, RDMs
from inscape.store import Store, View
from inscape.summaries import RDM

PLAIN = ("correlation", "cosine", "euclidean", "squared_euclidean")
DISTANCES = (*PLAIN, "mahalanobis", "crossnobis", "poisson")


def rdm(data: Any, distance: str = "correlation", *, by: Any = None, folds: Any = None, noise: Any = None) -> RDMs:
    """Dissimilarities between all pairs of stimuli or conditions.

    Args:
        data: a view, an array [n, d] whose rows are stimuli, a store (one matrix for each site), or {subject: one of these}, whose units
            need not agree.
        distance: "correlation" (1 − r across units), "cosine", "euclidean" (‖a − b‖), "squared_euclidean" (‖a − b‖² / d), "mahalanobis"
            (squared, per unit, by the noise covariance), "crossnobis" (the same across folds, unbiased: noise does not add to it), or
            "poisson" (symmetric Kullback–Leibler divergence of rates; across folds where these are given).
        by: the condition of each row: a column of the view, or one label per row; default each stimulus, repeats averaged.
        folds: independent parts of the measurement, such as runs: a column, or one label per row; default the repeats of a view.
        noise: for "mahalanobis" and "crossnobis": "residual" (what neither condition nor fold explains), "measurement" (deviations from the
            mean of the condition), a covariance [d, d], or one covariance for each fold. Estimates are shrunk toward their diagonal.
            Default none for "crossnobis".

    Returns:
        `RDMs` with a row for each matrix; conditions stand in the order in which they first occur.

    Raises:
        DegenerateInputError: an unknown distance, rows that leave it undefined, or noise that is no covariance.
        TooFewStimuliError: fewer than 2 conditions or folds.
        StoreMismatchError: labels do not fit the rows, or subjects did not see the same stimuli.
        ValueError: folds or noise for a distance that has none.

    Cost:
        n² d. Crossnobis of f folds needs f n² d where every fold has every condition, f² n² d / 2 otherwise, and no d² numbers unless a
        covariance is given.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((40, 6))
        >>> ix.rdm(X, "crossnobis", by=np.arange(40) % 10, folds=np.arange(40) // 10)
        RDMs: 1 of 10 stimuli, crossnobis distance
    """
    if distance not in DISTANCES:
        raise DegenerateInputError(f"unknown distance {distance!r}; nearest: {nearest(distance, DISTANCES)}")
    if noise is not None and distance not in ("mahalanobis", "crossnobis"):
        raise ValueError(f"noise is for 'mahalanobis' and 'crossnobis', not for {distance!r}")
    if folds is not None and distance in PLAIN:
        raise ValueError(f"folds are for crossvalidated distances and noise, not for {distance!r}; use distance='crossnobis'")
    if distance == "mahalanobis" and noise is None:
        raise ValueError("distance='mahalanobis' needs noise='residual', 'measurement' or a covariance [d, d]")
    if isinstance(data, Mapping):
        parts = [_named(rdm(one, distance, by=by, folds=folds, noise=noise), str(name)) for name, one in data.items()]
        if not parts:
            raise TooFewStimuliError("rdm of an empty dictionary; give {subject: view or array}")
        return RDMs.concat(parts)
    if isinstance(data, Store):
        sites = [data[site] for site in data.sites]
        built = [rdm(view, distance, by=by, folds=folds, noise=noise) for view in sites]
        whole = RDMs.concat(built)
        named = {"subject": [view.site for view in sites], "system": [data.system] * len(sites), "site": [view.site for view in sites]}
        return RDMs(whole.values, whole.stimuli, named, distance=distance)
    rows, labels, columns = _rows(data, by)
    condition, first = _numbered(labels)
    if len(first) < 2:
        raise TooFewStimuliError(f"the rows belong to {len(first)} condition; a dissimilarity needs 2")
    fold = _folds(data, folds, len(rows), crossed=distance == "crossnobis")
    values = _values(rows, condition, fold, distance, noise)
    stimuli = {ID: [str(one) for one in labels[first]], **{name: column[first] for name, column in columns.items() if name != ID}}
    subjects = {"subject": [data.system], "system": [data.system], "site": [data.site]} if isinstance(data, View) else None
    return RDMs(values, stimuli, subjects, distance=distance)


def _values(rows: np.ndarray, condition: np.ndarray, fold: np.ndarray | None, distance: str, noise: Any) -> np.ndarray:
    if distance == "crossnobis":
        assert fold is not None
        check_folds(fold)
        means, present = fold_means(rows, condition, fold)
        return crossnobis(means, present, _noise(rows, condition, fold, noise))
    if distance == "poisson" and fold is not None:
        check_folds(fold)
        return crossed_poisson(*fold_means(rows, condition, fold))
    one_each = len(rows) == int(condition.max()) + 1
    means = rows if one_each else fold_means(rows, condition, np.zeros_like(condition))[0][0]
    if distance == "poisson":
        return poisson(means, means)
    if distance == "mahalanobis":
        whitening = _noise(rows, condition, fold, noise)
        if not isinstance(whitening, Whitening):
            raise DegenerateInputError(
                "distance='mahalanobis' takes one covariance; a list of them, one for each fold, is for 'crossnobis'"
            )
        means, distance = whitening(means), "squared_euclidean"
    return RDM.of(torch.from_numpy(np.ascontiguousarray(means)), distance).values.numpy()


def _noise(rows: np.ndarray, condition: np.ndarray, fold: np.ndarray | None, noise: Any) -> Whitening | list[np.ndarray] | None:
    if noise is None:
        return None
    if isinstance(noise, str):
        if noise not in KINDS:
            raise DegenerateInputError(f"noise={noise!r} is none of {KINDS}, a covariance, or a list of covariances")
        return of_residuals(*residual_rows(rows, condition, fold, noise))
    if isinstance(noise, (list, tuple)):
        return list(noise)
    return Whitening(root=of_covariance(noise, rows.shape[1]))


def _rows(data: Any, by: Any) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Rows in fp64, the condition of each, and what else is known about the stimuli."""
    if not isinstance(data, View):
        rows = as_rows(data, "data", minimum=2).double().cpu().numpy()
        if isinstance(by, str):
            raise StoreMismatchError(f"by={by!r} names a column, but plain arrays have none; give one label per row")
        labels = np.arange(len(rows)).astype(str) if by is None else np.asarray(by)
        _check_length(labels, len(rows), "by")
        return rows, labels.astype(object), {}
    rows = as_rows(data, data.site, minimum=2).double().cpu().numpy()
    if by is not None:
        labels = np.asarray(data.column(by) if isinstance(by, str) else by)
        _check_length(labels, len(rows), "by")
        return rows, labels.astype(object), {}
    labels = data.ids
    if data.position.any():
        labels = np.array([f"{name}@{place}" for name, place in zip(labels, data.position, strict=True)], dtype=object)
    return rows, labels, {name: data.column(name) for name in data.store.stimuli.column_names}


def _numbered(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as numbers in order of first appearance, and the row where each first appears."""
    known: dict[Any, int] = {}
    numbers = np.array([known.setdefault(label, len(known)) for label in labels.tolist()], dtype=np.int64)
    return numbers, np.unique(numbers, return_index=True)[1]


def _folds(data: Any, folds: Any, n: int, *, crossed: bool) -> np.ndarray | None:
    if folds is None:
        if isinstance(data, View) and data.repeat.any():
            return np.unique(data.repeat, return_inverse=True)[1].reshape(-1)
        if crossed:
            raise TooFewStimuliError("distance='crossnobis' needs folds=, one label per row (the run, say), or a view with repeats")
        return None
    if isinstance(folds, str) and not isinstance(data, View):
        raise StoreMismatchError(f"folds={folds!r} names a column, but plain arrays have none; give one label per row")
    labels = np.asarray(data.column(folds) if isinstance(folds, str) else folds)
    _check_length(labels, n, "folds")
    return np.unique(labels.astype(str) if labels.dtype == object else labels, return_inverse=True)[1].reshape(-1)


def _check_length(labels: Sequence[Any] | np.ndarray, n: int, what: str) -> None:
    if len(labels) != n:
        raise StoreMismatchError(f"{what} has {len(labels)} entries for {n} rows; give one label per row")


def _named(part: RDMs, name: str) -> RDMs:
    """The matrices under a subject's name; several of one subject keep their sites."""
    names = [name] if len(part) == 1 else [f"{name}/{own}" for own in part.names]
    return RDMs(part.values, part.stimuli, {**part.subjects, "subject": names}, distance=part.distance)

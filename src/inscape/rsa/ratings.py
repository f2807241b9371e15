"""Dissimilarities from judgments: each row of a table is one rater's word on one pair of stimuli."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inscape.errors import DegenerateInputError, StoreMismatchError, nearest
from inscape.rsa.rdms import ID, RDMs


def from_ratings(
    table: Any,
    first: str = "first",
    second: str = "second",
    rating: str = "rating",
    *,
    rater: str | None = None,
    scale: tuple[float, float] | None = None,
    stimuli: Sequence[Any] | None = None,
) -> RDMs:
    """One dissimilarity matrix for each rater from a table of pairwise ratings; pairs that were not rated are missing (NaN).

    A pair that one rater judged several times, in either order, gets the mean.

    Args:
        table: a DataFrame, an Arrow table, or {column: values}, with a row for each judgment.
        first: column of the first stimulus.
        second: column of the second stimulus.
        rating: column of the ratings.
        rater: column of who rated (a person, a model, a run of a model); without it, all are one rater.
        scale: for ratings of similarity, the lowest and highest possible rating: the dissimilarity is then (highest − rating) / (highest −
            lowest). Without it, ratings are dissimilarities already.
        stimuli: ids in the order wanted; default in order of first appearance.

    Raises:
        StoreMismatchError: a column is not there, or a stimulus is not among `stimuli`.
        DegenerateInputError: a stimulus is paired with itself, a rating is no number or outside the scale.

    Example:
        >>> table = {"first": ["cat", "cat"], "second": ["dog", "car"], "rating": [6, 1]}
        >>> from_ratings(table, scale=(1, 7)).square()[0, 0]  # cat-dog is near, cat-car far; dog-car was not rated
        array([0.        , 0.16666667, 1.        ])
    """
    columns = {name: _column(table, name) for name in (first, second, rating, *([rater] if rater else []))}
    a, b = (np.array([str(one) for one in columns[name]], dtype=object) for name in (first, second))
    ids = (
        [str(one) for one in stimuli]
        if stimuli is not None
        else list(dict.fromkeys(one for pair in zip(a, b, strict=True) for one in pair))
    )
    place = {name: index for index, name in enumerate(ids)}
    if unknown := sorted({*a, *b} - set(place)):
        raise StoreMismatchError(f"{len(unknown)} rated stimuli are not among the {len(ids)} given, such as {unknown[:3]}")
    values = np.array([np.nan if one is None else one for one in columns[rating]], dtype=np.float64)
    if not np.isfinite(values).all():
        raise DegenerateInputError(f"{int((~np.isfinite(values)).sum())} of {len(values)} ratings are no numbers; leave those rows out")
    if scale is not None:
        low, high = scale
        if not low < high or values.min() < low or values.max() > high:
            raise DegenerateInputError(f"ratings run from {values.min():g} to {values.max():g}, which scale={scale} does not hold")
        values = (high - values) / (high - low)
    i, j = (np.array([place[name] for name in side], dtype=np.int64) for side in (a, b))
    if (i == j).any():
        raise DegenerateInputError(f"{int((i == j).sum())} rows rate a stimulus against itself, such as {a[i == j][0]!r}; leave them out")
    who = [str(one) for one in columns[rater]] if rater else ["all"] * len(values)
    raters = list(dict.fromkeys(who))
    n, row = len(ids), np.array([raters.index(one) for one in who])
    low_index, high_index = np.minimum(i, j), np.maximum(i, j)
    pair = low_index * (2 * n - low_index - 1) // 2 + high_index - low_index - 1
    sums, counts = np.zeros((len(raters), n * (n - 1) // 2)), np.zeros((len(raters), n * (n - 1) // 2))
    np.add.at(sums, (row, pair), values)
    np.add.at(counts, (row, pair), 1)
    rated = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return RDMs(rated, {ID: ids}, {"subject": raters, "judgments": counts.sum(1).astype(int).tolist()}, distance="rating")


def _column(table: Any, name: str) -> list[Any]:
    names = list(table) if isinstance(table, Mapping) else list(getattr(table, "column_names", getattr(table, "columns", [])))
    if name not in names:
        raise StoreMismatchError(f"the table has no column {name!r}; nearest: {nearest(name, [str(one) for one in names])}")
    values = table[name]
    return values.to_pylist() if hasattr(values, "to_pylist") else list(values)

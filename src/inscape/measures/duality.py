"""Neural collapse of a classifier and the classes it reads: self-duality, and agreement with the nearest class mean."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, linalg

from inscape.arrays import row_blocks
from inscape.errors import DegenerateInputError, StoreMismatchError
from inscape.measures.base import measure
from inscape.measures.class_pairs import classes_of
from inscape.summaries import ClassMoments, Head, LabeledRows


@measure(
    invariant={"translation", "scale", "row_order"},
    sensitive={"rotation", "linear"},
    range=(0, 2),
    source="Papyan et al. 2020, NC3",
    higher="less collapsed",
    undefined={"constant"},
    minimum=4,
    null="about √2 for a classifier that has nothing to do with the classes",
)
def nc3_duality(classes: ClassMoments, head: Head) -> float:
    r"""The distance between the classifier's weights and the class means it reads, both brought to length 1.

    $\left\lVert W / \lVert W \rVert_F - M / \lVert M \rVert_F \right\rVert_F$ for the rows of W [C, d] that belong to the classes and their
    centered means M [C, d]. Labels that are whole numbers are the outputs of the classifier; other labels are its outputs in sorted order.

    Args:
        classes: moments by class of the rows [n, d] that the classifier reads.
        head: the classifier.

    Returns:
        A distance between matrices of length 1: 0 for means and weights in proportion, √2 for unrelated ones, 2 for opposite ones.

    Raises:
        DegenerateInputError: fewer than two classes with two rows, equal class means, or weights that are all zero.
        StoreMismatchError: labels and outputs cannot be matched, or the classifier reads another number of units.
        TooFewStimuliError: fewer than 4 rows.

    Warns:
        InscapeWarning: classes of one row, which are left out.

    Source:
        Papyan, Han & Donoho, "Prevalence of neural collapse during the terminal phase of deep learning training", PNAS 2020: NC3.

    Cost:
        n d, then C d.

    Bias:
        Too high where n_c is small: noise in the means is no part of the weights.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.repeat(np.eye(3) + 5, 2, axis=0)
        >>> round(ix.measures.nc3_duality(X, [0, 0, 1, 1, 2, 2], weights=2 * np.eye(3) - 2 / 3), 6)
        0.0
    """
    found = classes_of(classes)
    chosen = head.weight[torch.from_numpy(outputs_of(found.labels, head))]
    length = linalg.matrix_norm(chosen)
    if length == 0:
        raise DegenerateInputError(f"the weights of the {found.count} classes are all zero (shape {tuple(head.weight.shape)})")
    return float(linalg.matrix_norm(chosen / length - found.means.cpu() / linalg.matrix_norm(found.means).cpu()))


@measure(
    invariant={"row_order"},
    sensitive={"rotation", "linear"},
    range=(0, 1),
    source="Papyan et al. 2020, NC4",
    higher="more collapsed",
    undefined={"constant"},
    minimum=4,
    null="about 1 / C for a classifier that has nothing to do with the classes",
)
def nc4_agreement(labeled: LabeledRows, head: Head) -> float:
    r"""How often the classifier decides for the class whose mean is nearest.

    The share of rows with $\arg\max_c (W x + b)_c = \arg\min_c \lVert x - \mu_c \rVert$, both over the classes that occur in the labels.
    The bias matters: without it collapsed rows that are not centered agree by chance only. Labels that are whole numbers are the outputs
    of the classifier; other labels are its outputs in sorted order.

    Args:
        labeled: the rows [n, d] that the classifier reads, with labels.
        head: the classifier, with its bias.

    Returns:
        A share of rows.

    Raises:
        DegenerateInputError: fewer than two classes with two rows, or equal class means.
        StoreMismatchError: labels and outputs cannot be matched, or the classifier reads another number of units.
        TooFewStimuliError: fewer than 4 rows.

    Warns:
        InscapeWarning: classes of one row, which are left out.

    Source:
        Papyan, Han & Donoho, PNAS 2020, NC4: the decision collapses to the nearest class center.

    Cost:
        2 n d C; it needs the rows again after the means.

    Bias:
        Too low by rows that lie between two means; the means are those of the same rows.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.repeat([[1.0, 5], [3, 5]], 2, axis=0)
        >>> ix.measures.nc4_agreement(X, [0, 0, 1, 1], weights=([[-1.0, 0], [1, 0]], [4, 0]))  # the boundary lies at x = 2
        1.0
    """
    found = classes_of(labeled.classes)
    chosen = torch.from_numpy(outputs_of(found.labels, head))
    center = found.center.cpu()
    means, weight = found.means.cpu(), head.weight[chosen]
    offset, half = head.bias[chosen] + weight @ center, means.square().sum(1) / 2
    kept = torch.from_numpy(np.isin(labeled.labels, found.labels))
    rows = labeled.rows.cpu()[kept]
    agreeing = 0
    for block in row_blocks(len(rows), rows.shape[1] + found.count):
        wide = rows[block].double() - center
        agreeing += int((_winner(wide @ weight.T + offset) == _winner(wide @ means.T - half)).sum())
    return agreeing / len(rows)


def outputs_of(labels: np.ndarray, head: Head) -> np.ndarray:
    """The output of the classifier that stands for each label, int64 [C].

    Raises:
        StoreMismatchError: a label is no output, or names are not as many as outputs.
    """
    if labels.dtype.kind in "iub" or (labels.dtype.kind == "f" and bool((labels == np.round(labels)).all())):
        numbers = labels.astype(np.int64)
        if int(numbers.min()) < 0 or int(numbers.max()) >= head.n:
            raise StoreMismatchError(f"labels go from {numbers.min()} to {numbers.max()}, but the weights have outputs 0 to {head.n - 1}")
        return numbers
    if len(labels) != head.n:
        raise StoreMismatchError(
            f"{len(labels)} classes by name for {head.n} outputs of the weights; use labels that are the numbers of the outputs"
        )
    return np.arange(len(labels))


def _winner(scores: Tensor) -> Tensor:
    """The first of the best, where the best differ by rounding alone."""
    best = scores.max(1, keepdim=True).values
    near = scores >= best - 1e-12 * math.sqrt(scores.shape[1]) * scores.abs().max(1, keepdim=True).values
    return near.int().argmax(1)

"""How much the directions of features overlap, and how a layer looks at its input."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import linalg

from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.base import measure
from inscape.summaries import Head, Rows, Weights


def _references(n: float, d: int) -> dict[str, Any]:
    return {"random": 1 / d, "welch_bound": max(0.0, (n - d) / (d * (n - 1))) if n > 1 else 0.0}


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(0, 1),
    source="Liu et al. 2025, mean squared overlap; Welch 1974",
    higher="directions overlap more",
    undefined=(),
    record=_references,
)
def superposition(weights: Weights) -> float:
    r"""The mean squared cosine between different rows of a matrix: how much features share their directions.

    $\frac{1}{m(m-1)} \sum_{i \ne j} \cos^2(w_i, w_j)$ for the directions of m features in d units, rows of a matrix [m, d] such as an
    embedding, an output layer or a dictionary. Random directions have $1/d$ in expectation, and no m > d directions have less than Welch's
    $\frac{m-d}{d(m-1)}$; results keep both. Rows of zeros are left out.

    Args:
        weights: the matrix.

    Returns:
        A squared cosine, from 0 (orthogonal; out of reach for m > d) to 1 (all rows in one direction).

    Raises:
        DegenerateInputError: fewer than two rows that are not zero.
        TooFewStimuliError: fewer than 2 rows.

    Warns:
        InscapeWarning: rows of zeros, which are left out.

    Source:
        Liu, Liu & Gore, "Superposition yields robust neural scaling", NeurIPS 2025: mean squared overlaps and their 1/d; Welch, "Lower
        bounds on the maximum cross correlation of signals", IEEE Trans. Inf. Theory 1974.

    Cost:
        m d min(m, d), without forming a pair.

    Bias:
        None: the matrix is no sample.

    Example:
        >>> import numpy as np, inscape as ix
        >>> W = np.array([[1.0, 0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])  # three directions at 120°: Welch's bound
        >>> round(ix.measures.superposition(W), 6)
        0.25
    """
    largest = float(weights.matrix.abs().max())
    rows = weights.matrix / largest if largest > 0 else weights.matrix
    lengths = linalg.vector_norm(rows, dim=1)
    used = lengths > 0
    count = int(used.sum())
    if count < 2:
        raise DegenerateInputError(f"{count} of {weights.n} rows are not zero; an overlap needs two")
    if count < weights.n:
        warnings.warn(f"{weights.n - count} of {weights.n} rows are zero and are left out", InscapeWarning, stacklevel=2)
    units = rows[used] / lengths[used].unsqueeze(1)
    gram = units.T @ units if count > weights.d else units @ units.T
    total = float(gram.square().sum()) - count
    return min(1.0, max(0.0, total / (count * (count - 1))))


@measure(
    invariant={"scale", "row_order"},
    sensitive={"rotation"},
    range=(0, 0.5),
    source="Qiu et al. 2025, sign diversity of the spectral alignment",
    higher="inputs on both sides",
    undefined=(),
    minimum=1,
)
def spectral_alignment(rows: Rows, head: Head) -> float:
    r"""How evenly the inputs of a layer lie on both sides of the direction that it stretches most.

    $\min(p, 1 - p)$ with p the share of rows x [n, d] for which $\cos(x, v_1) > 0$, where $v_1$ is the leading right singular vector of
    the layer's weights [out, d]. Its sign is arbitrary, so the smaller side is taken. Falling to 0 warns that the loss will explode.

    Args:
        rows: the inputs of the layer.
        head: the layer.

    Returns:
        A share, from 0 (all inputs on one side) to .5.

    Raises:
        DegenerateInputError: all rows are zero, or the weights are.
        StoreMismatchError: the layer reads another number of units.
        TooFewStimuliError: fewer than one row.

    Source:
        Qiu, Wu, Tan, Wang & Yao, "Spectral alignment as predictor of loss explosion in neural network training", 2025: the diversity of
        signs of the alignment between inputs and principal singular vector.

    Cost:
        n d, and the cube of d for the vector.

    Bias:
        Coarse for few rows: it moves in steps of 1 / n. Inputs after a ReLU lie on one side whenever v₁ has one sign.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[1.0, 9], [2, -9], [-1, 9], [3, 0]])
        >>> ix.measures.spectral_alignment(X, weights=np.diag([5.0, 1]))
        0.25
    """
    if float(head.weight.abs().max()) == 0:
        raise DegenerateInputError(f"the weights are all zero (shape {tuple(head.weight.shape)})")
    used = rows.rows.cpu()[(rows.rows != 0).any(1).cpu()].double()
    if len(used) == 0:
        raise DegenerateInputError(f"all {rows.n} rows are zero; they lie on no side")
    positive = float((used @ head.leading_direction > 0).to(torch.float64).mean())
    return min(positive, 1 - positive)

"""Cosine and Pearson correlation of two representational dissimilarity matrices, as they are and whitened."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.summaries import RDM
from inscape.summaries.base import Need
from inscape.summaries.whitened import whitened_product

Correlations = Annotated[RDM, Need(metric="correlation")]
Squares = Annotated[RDM, Need(metric="squared_euclidean")]


@measure(
    invariant={"scale", "permutation", "row_order"},
    sensitive={"translation", "rotation", "linear", "unit_scale"},
    range=(-1, 1),
    source="Kriegeskorte et al. 2008",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="near 1: dissimilarities are positive, and so is their cosine",
)
def rsa_cosine(x: Correlations, y: Correlations) -> float:
    r"""The cosine of two representational dissimilarity matrices: 1 when they are equal up to a factor.

    $\langle d, e \rangle / (\lVert d \rVert \lVert e \rVert)$ over the $n (n - 1) / 2$ pairs of rows, with the dissimilarity $1 - r$
    between two rows [d] across units. Paired rows [n, d]. Meant for dissimilarities with a true zero (crossnobis, in `ix.compare` of RDMs).

    Args:
        x: dissimilarities of the first system.
        y: dissimilarities of the second system.

    Returns:
        A cosine, from -1 to 1.

    Raises:
        DegenerateInputError: a row is constant across units, or all dissimilarities are 0.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Kriegeskorte, Mur & Bandettini, "Representational similarity analysis: connecting the branches of systems neuroscience",
        Frontiers in Systems Neuroscience 2008.

    Cost:
        n² d for the dissimilarities of each system.

    Bias:
        High for any two sets of positive dissimilarities, related or not: read it with its null, or take `rsa_corr`.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((20, 6))
        >>> round(ix.measures.rsa_cosine(X, 5 * X), 6)
        1.0
    """
    return _cosine(x.values, y.values, x.n, "zero")


@measure(
    invariant={"scale", "permutation", "row_order"},
    sensitive={"translation", "rotation", "linear", "unit_scale"},
    range=(-1, 1),
    source="Kriegeskorte et al. 2008",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="0 for independent representations",
)
def rsa_corr(x: Correlations, y: Correlations) -> float:
    r"""Pearson's correlation of two representational dissimilarity matrices: 1 when they agree up to a factor and a constant.

    Over the $n (n - 1) / 2$ pairs of rows, with the dissimilarity $1 - r$ between two rows [d] across units. Paired rows [n, d].

    Args:
        x: dissimilarities of the first system.
        y: dissimilarities of the second system.

    Returns:
        A correlation, from -1 to 1.

    Raises:
        DegenerateInputError: a row is constant across units, or all dissimilarities are equal.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Kriegeskorte, Mur & Bandettini, "Representational similarity analysis: connecting the branches of systems neuroscience",
        Frontiers in Systems Neuroscience 2008.

    Cost:
        n² d for the dissimilarities of each system.

    Bias:
        None under independence; measurement noise pulls it toward 0. The n(n - 1)/2 pairs are dependent: use the permutation null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((20, 6))
        >>> round(ix.measures.rsa_corr(X, 5 * X), 6)
        1.0
    """
    return _cosine(_centered(x.values), _centered(y.values), x.n, "equal")


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(-1, 1),
    source="Diedrichsen et al. 2020",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="grows with d/n: it is linear_cka",
)
def rsa_cosine_whitened(x: Squares, y: Squares) -> float:
    r"""The cosine of two dissimilarity matrices after the correlation that estimation leaves between their entries is taken out.

    $d^\top V^{-1} e / \sqrt{d^\top V^{-1} d \cdot e^\top V^{-1} e}$, with V the covariance of dissimilarities that share stimuli, for
    squared Euclidean distances per unit of paired rows [n, d]. Equal to `linear_cka`, which needs no n² numbers.

    Args:
        x: dissimilarities of the first system.
        y: dissimilarities of the second system.

    Returns:
        A cosine, from 0 to 1 for arrays; from -1 for crossvalidated dissimilarities.

    Raises:
        DegenerateInputError: all rows of one input are equal, or fp64 cannot hold their squares.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Diedrichsen, Berlot, Mur, Schütt, Shahbazi & Kriegeskorte, "Comparing representational geometries using whitened
        unbiased-distance-matrix similarity", 2020, with independent noise of equal size.

    Cost:
        n² d for the dissimilarities of each system; n² for the whitening, which has a closed form.

    Bias:
        Too high for few stimuli, as `linear_cka`; none for crossnobis dissimilarities (in `ix.compare` of RDMs).

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((20, 6))
        >>> round(ix.measures.rsa_cosine_whitened(X, 5 * X), 6)
        1.0
    """
    return _whitened_cosine(x.values, y.values, x.n, "zero")


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(-1, 1),
    source="Diedrichsen et al. 2020",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="0 for independent representations, up to a bias that grows with d/n",
)
def rsa_corr_whitened(x: Squares, y: Squares) -> float:
    r"""The correlation of two dissimilarity matrices after the correlation that estimation leaves between their entries is taken out.

    `rsa_cosine_whitened` of dissimilarities less their plain mean; squared Euclidean distances per unit of paired rows [n, d].

    Args:
        x: dissimilarities of the first system.
        y: dissimilarities of the second system.

    Returns:
        A correlation, from -1 to 1.

    Raises:
        DegenerateInputError: all rows of one input are equal, all dissimilarities are, or fp64 cannot hold them.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Diedrichsen, Berlot, Mur, Schütt, Shahbazi & Kriegeskorte, "Comparing representational geometries using whitened
        unbiased-distance-matrix similarity", 2020.

    Cost:
        n² d for the dissimilarities of each system; n² for the whitening.

    Bias:
        Too high for few stimuli in many units, less than `rsa_cosine_whitened`. Read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((20, 6))
        >>> round(ix.measures.rsa_corr_whitened(X, 5 * X), 6)
        1.0
    """
    return _whitened_cosine(_centered(x.values), _centered(y.values), x.n, "equal")


def _centered(values: Tensor) -> Tensor:
    centered = values - values.mean()
    # Dissimilarities that differ by rounding alone have no pattern to compare.
    equal = float(values.max() - values.min()) <= 100 * torch.finfo(values.dtype).eps * float(values.abs().max())
    return torch.zeros_like(centered) if equal else centered


def _cosine(a: Tensor, b: Tensor, n: int, word: str) -> float:
    sizes = a.norm(), b.norm()
    for size, name in zip(sizes, "XY", strict=True):
        if float(size) == 0:
            raise DegenerateInputError(f"all dissimilarities of {name} are {word} ({n} rows); there is no pattern to compare")
    return _clipped(float((a / sizes[0]) @ (b / sizes[1])))


def _whitened_cosine(a: Tensor, b: Tensor, n: int, word: str) -> float:
    sizes = [float(whitened_product(v, v, n)) for v in (a, b)]
    for size, values, name in zip(sizes, (a, b), "XY", strict=True):
        if size <= 1e-14 * float(values @ values):
            raise DegenerateInputError(f"all dissimilarities of {name} are {word} ({n} rows); there is no pattern to compare")
    return _clipped(float(whitened_product(a, b, n)) / (sizes[0] ** 0.5 * sizes[1] ** 0.5))


def _clipped(value: float) -> float:
    return min(1.0, max(-1.0, value)) if value == value else value

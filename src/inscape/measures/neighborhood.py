"""Agreement of two representations about who is near whom: shares of neighbors in common."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError, TooFewStimuliError
from inscape.measures.base import measure
from inscape.summaries import Neighbors
from inscape.summaries.base import Need

Graph = Annotated[Neighbors, Need(metric="cosine", center=False, k="k")]


def lists(x: Neighbors, y: Neighbors, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest rows of every row in both systems, [n, k] each.

    Raises:
        TooFewStimuliError: fewer than k + 2 rows.
    """
    if x.n < k + 2:
        raise TooFewStimuliError(f"k = {k} neighbors need at least {k + 2} rows, got {x.n}; use more stimuli or a smaller k")
    return x.ids[:, :k], y.ids[:, :k]


def shared(first: Tensor, second: Tensor) -> Tensor:
    """How many entries two lists [n, k] of distinct numbers have in common, row by row, [n]."""
    both = torch.cat([first, second], 1).sort(1).values
    return (both[:, 1:] == both[:, :-1]).sum(1)


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(0, 1),
    source="Huh et al. 2024, appendix A",
    higher="more similar",
    symmetric=True,
    undefined=(),
    minimum=3,
    null="k / (n - 1) for independent representations",
)
def mutual_knn(x: Graph, y: Graph, *, k: int = 10) -> float:
    r"""The share of a stimulus's k nearest neighbors that two representations have in common.

    $\frac{1}{nk} \sum_i \lvert N_X(i) \cap N_Y(i) \rvert$ with the k nearest rows by cosine, rows [n, d] as they are and paired; ties
    go to the lower row number.

    Args:
        x: neighbors in the first system.
        y: neighbors in the second system.
        k: neighbors of each row.

    Returns:
        A share, from 0 to 1.

    Raises:
        TooFewStimuliError: fewer than k + 2 rows: everybody would be everybody's neighbor.
        DegenerateInputError: a row is zero and has no direction.

    Source:
        Huh, Cheung, Wang & Isola, "The platonic representation hypothesis", ICML 2024, appendix A.

    Cost:
        n² d for the neighbors of each system, shared by all measures of neighbors; then n k.

    Bias:
        Chance gives k / (n - 1), so values at different n do not compare: `mutual_knn_adjusted` does, or read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> ix.measures.mutual_knn(X, 2 * X)
        1.0
    """
    first, second = lists(x, y, k)
    return float(shared(first, second).sum()) / (x.n * k)


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(-1, 1),
    source="Huh et al. 2024, adjusted for chance",
    higher="more similar",
    symmetric=True,
    undefined=(),
    minimum=3,
    null="0 for independent representations, at any n and k",
)
def mutual_knn_adjusted(x: Graph, y: Graph, *, k: int = 10) -> float:
    r"""The share of neighbors in common beyond chance: 0 for independent representations, 1 for the same neighbors.

    $(s - c) / (1 - c)$ with $s$ of `mutual_knn` and its exact mean $c = k / (n - 1)$ over all pairings of the rows; paired rows [n, d].

    Args:
        x: neighbors in the first system.
        y: neighbors in the second system.
        k: neighbors of each row.

    Returns:
        A share beyond chance, at most 1; below 0 where fewer neighbors are shared than by chance.

    Raises:
        TooFewStimuliError: fewer than k + 2 rows: everybody would be everybody's neighbor.
        DegenerateInputError: a row is zero and has no direction.

    Source:
        Huh, Cheung, Wang & Isola, "The platonic representation hypothesis", ICML 2024, appendix A, with
        the correction for chance that is usual for overlaps.

    Cost:
        n² d for the neighbors of each system, shared by all measures of neighbors; then n k.

    Bias:
        None: its mean over all pairings is exactly 0.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> ix.measures.mutual_knn_adjusted(X, 2 * X)
        1.0
    """
    first, second = lists(x, y, k)
    chance = k / (x.n - 1)
    return (float(shared(first, second).sum()) / (x.n * k) - chance) / (1 - chance)


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(0, 1),
    source="Wang et al. 2022; ReSi",
    higher="more similar",
    symmetric=True,
    undefined=(),
    minimum=3,
    null="about k / (2 (n - 1)) for independent representations and k far below n",
)
def jaccard_knn(x: Graph, y: Graph, *, k: int = 10) -> float:
    r"""The mean Jaccard overlap of a stimulus's k nearest neighbors in two representations.

    $\frac{1}{n} \sum_i \lvert N_X(i) \cap N_Y(i) \rvert / \lvert N_X(i) \cup N_Y(i) \rvert$ with the k nearest rows by cosine, paired rows
    [n, d]. A row is never its own neighbor, whatever duplicates it has.

    Args:
        x: neighbors in the first system.
        y: neighbors in the second system.
        k: neighbors of each row.

    Returns:
        An overlap, from 0 to 1.

    Raises:
        TooFewStimuliError: fewer than k + 2 rows: everybody would be everybody's neighbor.
        DegenerateInputError: a row is zero and has no direction.

    Source:
        Klabunde et al., "ReSi: a comprehensive benchmark for representational similarity measures", 2024 (Jaccard
        similarity of neighborhoods).

    Cost:
        n² d for the neighbors of each system, shared by all measures of neighbors; then n k.

    Bias:
        Chance gives about k / (2n); read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> ix.measures.jaccard_knn(X, 2 * X)
        1.0
    """
    first, second = lists(x, y, k)
    common = shared(first, second).double()
    return float((common / (2 * k - common)).mean())


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(-1, 1),
    source="Huh et al. 2024, appendix A",
    higher="more similar",
    symmetric=False,
    undefined=(),
    minimum=3,
    null="0 for independent representations",
)
def cknna(x: Graph, y: Graph, *, k: int = 10) -> float:
    r"""The debiased kernel alignment of two representations within their mutual neighbors: between `mutual_knn` and CKA.

    $\mathrm{HSIC}_1(A \circ K, A \circ L) / \sqrt{\mathrm{HSIC}_1(B \circ K, B \circ K)\, \mathrm{HSIC}_1(C \circ L, C \circ L)}$
    with the cosine kernels K, L of paired rows [n, d], B and C their k-nearest-neighbor masks, A = B ∘ C, and Song's unbiased HSIC.
    As k grows it becomes debiased CKA of unit rows. The masks are not symmetric, so in the last digits neither is the value.

    Args:
        x: neighbors in the first system.
        y: neighbors in the second system.
        k: neighbors of each row.

    Returns:
        A similarity, from −1 to 1; 0 where no neighbor is shared.

    Raises:
        TooFewStimuliError: fewer than k + 2 rows: everybody would be everybody's neighbor.
        DegenerateInputError: a row is zero and has no direction.
        DegenerateInputError: the unbiased self-similarity of one input is not positive.

    Source:
        Huh, Cheung, Wang & Isola, "The platonic representation hypothesis", ICML 2024, appendix A (CKNNA).

    Cost:
        n² d for the neighbors of each system, shared by all measures of neighbors; then n k log k; no n × n mask.

    Bias:
        None under independence.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> round(ix.measures.cknna(X, 2 * X), 6)
        1.0
    """
    first, second = lists(x, y, k)
    near_x, near_y = 1 - x.distances[:, :k], 1 - y.distances[:, :k]
    if x.n < 4:
        raise TooFewStimuliError(f"the unbiased estimate needs at least 4 rows, got {x.n}; use more stimuli")
    both = (first[:, :, None] == second[:, None, :]).nonzero()
    i, a, b = both.T
    across = _hsic(x.n, i, first[i, a], near_x[i, a], near_y[i, b])
    own = [_hsic(x.n, *_entries(ids, values), values.flatten()) for ids, values in ((first, near_x), (second, near_y))]
    for value, name in zip(own, "XY", strict=True):
        if value <= 0:
            raise DegenerateInputError(f"the unbiased self-similarity of {name} within its {k} neighbors is {value:.3g}; use a larger k")
    return max(-1.0, min(1.0, across / math.sqrt(own[0] * own[1])))


def _entries(ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.arange(len(ids)).repeat_interleave(ids.shape[1]), ids.flatten(), values.flatten()


def _hsic(n: int, i: Tensor, j: Tensor, K: Tensor, L: Tensor) -> float:
    """Song's estimate, up to its constant, of two sparse n × n matrices with the values K, L at the entries (i, j), none on the diagonal.

    The matrices are not symmetric: j may be a neighbor of i and not the other way round.
    """
    code, mirrored = i * n + j, j * n + i
    order = code.argsort()
    at = torch.searchsorted(code[order], mirrored).clamp(max=max(0, len(code) - 1))
    found = code[order][at] == mirrored if len(code) else torch.zeros(0, dtype=torch.bool)
    product = float((K[found] * L[order][at][found]).sum())
    columns = torch.zeros(n, dtype=torch.float64).index_add_(0, j, K)
    rows = torch.zeros(n, dtype=torch.float64).index_add_(0, i, L)
    return product + float(K.sum() * L.sum()) / ((n - 1) * (n - 2)) - 2 * float(columns @ rows) / (n - 2)

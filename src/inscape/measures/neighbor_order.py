"""Agreement of two representations about the order of neighbors, and about neighbors of neighbors."""

from __future__ import annotations

from typing import Annotated

import torch

from inscape.errors import TooFewStimuliError
from inscape.measures.base import measure
from inscape.measures.neighborhood import Graph, lists
from inscape.summaries.base import Need
from inscape.summaries.second_order import NeighborSimilarities


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={},
    range=(0, 1),
    source="Huh et al. 2024, appendix A",
    higher="more similar",
    symmetric=False,
    undefined=(),
    minimum=3,
    null="about 1 - exp(-k² / n) for independent representations",
)
def cycle_knn(x: Graph, y: Graph, *, k: int = 10) -> float:
    r"""The share of stimuli that come back to themselves: among the neighbors in X of one of their neighbors in Y.

    $\frac{1}{n} \lvert \{ i : i \in N_X(j) \text{ for some } j \in N_Y(i) \} \rvert$ with the k nearest rows by cosine, paired rows [n, d].
    It saturates: .89, .99 and 1.00 at k = 5, 10 and 20 on one correlated pair of 120 rows.

    Args:
        x: neighbors in the first system.
        y: neighbors in the second system.
        k: neighbors of each row.

    Returns:
        A share, from 0 to 1. Not symmetric.

    Raises:
        TooFewStimuliError: fewer than k + 2 rows: everybody would be everybody's neighbor.
        DegenerateInputError: a row is zero and has no direction.

    Source:
        Huh, Cheung, Wang & Isola, "The platonic representation hypothesis", ICML 2024, appendix A (cycle kNN).

    Cost:
        n² d for the neighbors of each system, shared by all measures of neighbors; then n k².

    Bias:
        Chance gives about k² / n, soon 1; read it with its null and a small k.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> ix.measures.cycle_knn(X, 2 * X, k=20)
        1.0
    """
    first, second = lists(x, y, k)
    back = first[second].flatten(1) == torch.arange(x.n)[:, None]
    return float(back.any(1).double().mean())


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(0, 1),
    source="Huh et al. 2024, appendix A",
    higher="more similar",
    symmetric=True,
    undefined=(),
    minimum=3,
    null="a little above k / n for independent representations",
)
def lcs_knn(x: Graph, y: Graph, *, k: int = 10) -> float:
    r"""The longest common subsequence of two ordered lists of neighbors, as a share of their length.

    $\frac{1}{nk} \sum_i \mathrm{LCS}(N_X(i), N_Y(i))$ with the k nearest rows by cosine in order of distance, paired rows [n, d]. Others
    give the length itself, k times this.

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
        Huh, Cheung, Wang & Isola, "The platonic representation hypothesis", ICML 2024, appendix A (longest common subsequence).

    Cost:
        n² d for the neighbors of each system, shared by all measures of neighbors; then n k² steps of dynamic
        programming, all rows at once.

    Bias:
        Chance gives a little above k / n; read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> ix.measures.lcs_knn(X, 2 * X)
        1.0
    """
    equal = torch.eq(*(ids[:, :, None] if axis else ids[:, None, :] for axis, ids in enumerate(lists(x, y, k)))).to(torch.int32)
    best = torch.zeros(x.n, k + 1, dtype=torch.int32)
    for row in range(k):
        above = best
        best = torch.zeros_like(above)
        for column in range(k):
            taken = above[:, column] + equal[:, row, column]
            best[:, column + 1] = torch.maximum(torch.maximum(above[:, column + 1], best[:, column]), taken)
    return float(best[:, k].double().mean()) / k


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(0, 1),
    source="Huh et al. 2024, appendix A",
    higher="more similar",
    symmetric=True,
    undefined=(),
    minimum=3,
    null="about k / n for independent representations",
)
def edit_knn(x: Graph, y: Graph, *, k: int = 10) -> float:
    r"""One minus the edit distance of two ordered lists of neighbors, as a share of their length.

    $1 - \frac{1}{nk} \sum_i \mathrm{Lev}(N_X(i), N_Y(i))$ with the Levenshtein distance (insert, delete, replace) of the k nearest rows by
    cosine in order of distance, paired rows [n, d].

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
        Huh, Cheung, Wang & Isola, "The platonic representation hypothesis", ICML 2024, appendix A (edit distance).

    Cost:
        n² d for the neighbors of each system, shared by all measures of neighbors; then n k² steps of dynamic
        programming, all rows at once.

    Bias:
        Chance gives about k / n; read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> ix.measures.edit_knn(X, 2 * X)
        1.0
    """
    differ = torch.ne(*(ids[:, :, None] if axis else ids[:, None, :] for axis, ids in enumerate(lists(x, y, k)))).to(torch.int32)
    steps = torch.arange(k + 1, dtype=torch.int32).repeat(x.n, 1)
    for row in range(k):
        above = steps
        steps = torch.full_like(above, row + 1)
        for column in range(k):
            moved = torch.minimum(above[:, column + 1], steps[:, column]) + 1
            steps[:, column + 1] = torch.minimum(moved, above[:, column] + differ[:, row, column])
    return 1 - float(steps[:, k].double().mean()) / k


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(0, 1),
    source="Wang et al. 2022; ReSi",
    higher="more similar",
    symmetric=True,
    undefined=(),
    minimum=3,
    null="below k / n for independent representations",
)
def rank_similarity(x: Graph, y: Graph, *, k: int = 10) -> float:
    r"""How alike the ranks are that shared neighbors have in two representations, near neighbors weighing more.

    The mean over rows of $\frac{1}{H_m} \sum_{j} \frac{2}{(1 + \lvert r_j - r'_j \rvert)(r_j + r'_j)}$ over the m neighbors j that
    both lists have, with their ranks r, r′ from 1 and the harmonic number $H_m$; 0 where none is shared. The k nearest rows by cosine,
    paired rows [n, d].

    Args:
        x: neighbors in the first system.
        y: neighbors in the second system.
        k: neighbors of each row.

    Returns:
        A similarity, from 0 to 1; it says nothing about how many neighbors are shared.

    Raises:
        TooFewStimuliError: fewer than k + 2 rows: everybody would be everybody's neighbor.
        DegenerateInputError: a row is zero and has no direction.

    Source:
        Klabunde et al., "ReSi: a comprehensive benchmark for representational similarity measures", 2024 (rank
        similarity).

    Cost:
        n² d for the neighbors of each system, shared by all measures of neighbors; then n k².

    Bias:
        Read it with its null, beside `jaccard_knn`.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> round(ix.measures.rank_similarity(X, 2 * X), 6)
        1.0
    """
    first, second = lists(x, y, k)
    same = first[:, :, None] == second[:, None, :]
    rank = torch.arange(1, k + 1, dtype=torch.float64)
    gain = 2 / ((1 + (rank[:, None] - rank).abs()) * (rank[:, None] + rank))
    harmonic = torch.cat([torch.ones(1, dtype=torch.float64), (1 / rank).cumsum(0)])
    return float(((same * gain).sum((1, 2)) / harmonic[same.sum((1, 2))]).mean())


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(-1, 1),
    source="Hamilton et al. 2016; ReSi",
    higher="more similar",
    symmetric=True,
    undefined=(),
    minimum=3,
    null="high where all rows point the same way; 0 for centered independent rows",
)
def second_order_cosine(pair: Annotated[NeighborSimilarities, Need(k="k")], *, k: int = 10) -> float:
    r"""How alike the similarities of a stimulus to its neighbors are in two representations.

    $\frac{1}{n} \sum_i \cos(s_i, s'_i)$ with the cosines s, s′ of row i with every row in the union of its k nearest in either system,
    rows [n, d] as they are and paired.

    Args:
        pair: similarities to neighbors in both systems.
        k: neighbors of each row.

    Returns:
        A cosine, from −1 to 1.

    Raises:
        TooFewStimuliError: fewer than k + 2 rows: everybody would be everybody's neighbor.
        DegenerateInputError: a row is zero and has no direction.

    Source:
        Hamilton, Leskovec & Jurafsky, "Cultural shift or linguistic drift? Comparing two computational measures of semantic change",
        EMNLP 2016.

    Cost:
        n² d for the neighbors of each system; then 2 k dot products a row.

    Bias:
        Near 1 wherever similarities are all positive and alike, as in representations with a large common mean. Read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> round(ix.measures.second_order_cosine(X, 2 * X), 6)
        1.0
    """
    if pair.n < k + 2:
        raise TooFewStimuliError(f"k = {k} neighbors need at least {k + 2} rows, got {pair.n}; use more stimuli or a smaller k")
    return max(-1.0, min(1.0, float(pair.cosines.mean())))

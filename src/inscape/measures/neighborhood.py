"""Agreement of two representations about who is near whom."""

from __future__ import annotations

from typing import Annotated

from inscape.errors import TooFewStimuliError
from inscape.measures.base import measure
from inscape.summaries import Neighbors
from inscape.summaries.base import Need


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
def mutual_knn(
    x: Annotated[Neighbors, Need(metric="cosine", center=False, k="k")],
    y: Annotated[Neighbors, Need(metric="cosine", center=False, k="k")],
    *,
    k: int = 10,
) -> float:
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
        n² d for the neighbors of each system, shared by all measures of neighbors; then n k².

    Bias:
        Chance gives k / (n - 1), so values at different n do not compare; read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> ix.measures.mutual_knn(X, 2 * X)
        1.0
    """
    n = x.n
    if n < k + 2:
        raise TooFewStimuliError(f"k = {k} neighbors need at least {k + 2} rows, got {n}; use more stimuli or a smaller k")
    shared = (x.ids[:, :k, None] == y.ids[:, None, :k]).sum()
    return float(shared) / (n * k)

"""Rank comparisons of dissimilarity matrices that do not favor models with ties."""

from __future__ import annotations

from typing import Annotated

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.stats.kendall import kendall_tau_a
from inscape.summaries import RDM
from inscape.summaries.base import Need

Correlations = Annotated[RDM, Need(metric="correlation")]


@measure(
    invariant={"scale", "permutation", "row_order"},
    sensitive={"translation", "rotation", "linear", "unit_scale"},
    range=(-1, 1),
    source="Schütt et al. 2023",
    higher="more similar",
    symmetric=True,
    undefined={"constant"},
    minimum=4,
    null="0 for independent representations",
)
def rsa_rho_a(x: Correlations, y: Correlations) -> float:
    r"""The rank correlation of two dissimilarity matrices that breaks ties at random, on average.

    $12 \sum (r - \bar r)(s - \bar s) / (m^3 - m)$ of mid-ranks over the $m = n (n - 1) / 2$ pairs of paired rows [n, d], with the
    dissimilarity $1 - r$ across units. Without ties it is Spearman's ρ; a model that predicts ties gains nothing by them.

    Args:
        x: dissimilarities of the first system.
        y: dissimilarities of the second system.

    Returns:
        A correlation, from -1 to 1; 1 needs dissimilarities without ties.

    Raises:
        DegenerateInputError: a row is constant across units, or all dissimilarities are equal.
        TooFewStimuliError: fewer than 4 rows.

    Source:
        Schütt, Kipnis, Diedrichsen & Kriegeskorte, "Statistical inference on representational geometries", eLife 2023.

    Cost:
        n² d for the dissimilarities of each system, n² log n for the ranks.

    Bias:
        None under independence; measurement noise pulls it toward 0.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((20, 6))
        >>> round(ix.measures.rsa_rho_a(X, 5 * X), 6)
        1.0
    """
    for rdm, name in ((x, "X"), (y, "Y")):
        _ordered(rdm, name)
    m = float(x.values.shape[0])
    mean = (m + 1) / 2
    return float(12 * ((x.ranks - mean) @ (y.ranks - mean)) / (m**3 - m))


@measure(
    invariant={"scale", "permutation", "row_order"},
    sensitive={"translation", "rotation", "linear", "unit_scale"},
    range=(-1, 1),
    source="Nili et al. 2014",
    higher="more similar",
    symmetric=True,
    undefined={"constant"},
    minimum=4,
    null="0 for independent representations",
)
def rsa_tau_a(x: Correlations, y: Correlations) -> float:
    r"""How many more pairs of dissimilarities two systems order alike than oppositely, as a share of all; ties are neither.

    Kendall's $\tau_A = (C - D) / \binom{m}{2}$ over the $m = n (n - 1) / 2$ pairs of paired rows [n, d], with the dissimilarity
    $1 - r$ across units.

    Args:
        x: dissimilarities of the first system.
        y: dissimilarities of the second system.

    Returns:
        A correlation, from -1 to 1; 1 needs dissimilarities without ties.

    Raises:
        DegenerateInputError: a row is constant across units, or all dissimilarities are equal.
        TooFewStimuliError: fewer than 4 rows.

    Source:
        Nili, Wingfield, Walther, Su, Marslen-Wilson & Kriegeskorte, "A toolbox for representational similarity analysis", PLoS
        Computational Biology 2014.

    Cost:
        n² d for the dissimilarities of each system, n² log n to count the pairs in the wrong order.

    Bias:
        None under independence; measurement noise pulls it toward 0.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((20, 6))
        >>> round(ix.measures.rsa_tau_a(X, 5 * X), 6)
        1.0
    """
    for rdm, name in ((x, "X"), (y, "Y")):
        _ordered(rdm, name)
    return float(kendall_tau_a(x.ranks.numpy()[None], y.ranks.numpy()[None])[0])


def _ordered(rdm: RDM, name: str) -> None:
    if float(rdm.ranks.max()) == float(rdm.ranks.min()):
        raise DegenerateInputError(f"all dissimilarities of {name} are equal ({rdm.n} rows); there is no order to compare")

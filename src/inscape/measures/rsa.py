"""Comparison of two representations through the distances between their stimuli."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.summaries import RDM
from inscape.summaries.base import Need
from inscape.summaries.weighted import weighted_spearman


def _weighted_spearman(X: Tensor, Y: Tensor, weights: Tensor, source: Tensor) -> Tensor:
    return weighted_spearman(RDM.of(X), RDM.of(Y), weights, source)


@measure(
    invariant={"scale", "permutation", "row_order"},
    sensitive={"translation", "rotation", "linear", "unit_scale"},
    range=(-1, 1),
    source="Kriegeskorte et al. 2008",
    higher="more similar",
    symmetric=True,
    undefined={"constant"},
    minimum=4,
    null="0 for independent representations",
    weighted=_weighted_spearman,
)
def rsa_spearman(x: Annotated[RDM, Need(metric="correlation")], y: Annotated[RDM, Need(metric="correlation")]) -> float:
    r"""The rank correlation of two representational dissimilarity matrices: 1 when both order all pairs of stimuli alike.

    Spearman's $\rho$ (Pearson's r of mid-ranks) over the $n (n - 1) / 2$ pairs of rows, with the dissimilarity $1 - r$ between two
    rows [d] across units. Paired rows [n, d].

    Args:
        x: dissimilarities of the first system.
        y: dissimilarities of the second system.

    Returns:
        A correlation, from -1 to 1.

    Raises:
        DegenerateInputError: a row is constant across units, or all dissimilarities are equal.
        TooFewStimuliError: fewer than 4 rows.

    Source:
        Kriegeskorte, Mur & Bandettini, "Representational similarity analysis: connecting the branches of systems neuroscience",
        Frontiers in Systems Neuroscience 2008.

    Cost:
        n² d for the dissimilarities of each system, n² log n for the ranks.

    Bias:
        None under independence; measurement noise pulls it toward 0. The n(n - 1)/2 pairs are dependent: use the permutation null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((20, 6))
        >>> round(ix.measures.rsa_spearman(X, 5 * X), 6)
        1.0
    """
    ranks_x, ranks_y = _unit_ranks(x, "X"), _unit_ranks(y, "Y")
    return min(1.0, max(-1.0, float(ranks_x @ ranks_y)))


def _unit_ranks(rdm: RDM, name: str) -> Float[Tensor, " pairs"]:
    """Centered mid-ranks of length 1."""
    # Dissimilarities (0 to 2) that differ by rounding alone have no order: their ranks would be noise.
    spread = float(rdm.values.max() - rdm.values.min())
    if spread <= 100 * torch.finfo(rdm.values.dtype).eps:
        raise DegenerateInputError(f"all dissimilarities of {name} are equal ({rdm.n} rows); there is no order to compare")
    ranks = rdm.ranks - rdm.ranks.mean()
    return ranks / ranks.norm()

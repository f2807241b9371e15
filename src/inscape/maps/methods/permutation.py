"""Units matched one to one."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment

from inscape.maps.base import Fit, PairedRows, map_method


@map_method(exact={"permutation"}, source="Li et al. 2015; Williams et al. 2021 (permutation metric)")
def permutation(pairs: PairedRows) -> Fit:
    r"""Each unit of b is one unit of a: the one-to-one matching that comes closest.

    $\min_P \lVert X_c P - Y_c \rVert_F$ over (partial) permutations, by the assignment with the largest total covariance. With different
    widths, units of b without a partner stay at their mean. The way back is the transpose.

    Args:
        pairs: what it is fitted on.

    Source:
        Williams, Kunz, Kornblith & Linderman, "Generalized shape metrics on neural representations", NeurIPS 2021, the permutation group.
    """
    cross = pairs.moments.cross
    rows, columns = linear_sum_assignment(cross.cpu().numpy(), maximize=True)
    matched = torch.stack([torch.from_numpy(rows), torch.from_numpy(columns)], 1)
    weight = torch.zeros_like(cross)
    weight[matched[:, 0], matched[:, 1]] = 1
    return Fit(weight, weight.T, {"matched": matched}, {"matched": len(matched)})

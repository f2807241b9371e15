"""Least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from inscape.errors import TooFewStimuliError
from inscape.maps.base import Fit, PairedRows, map_method
from inscape.summaries import CrossMoments


@map_method(exact={"rotation", "linear", "permutation"}, source="Lenc & Vedaldi 2015; Csiszárik et al. 2021 (direct matching)")
def affine(pairs: PairedRows) -> Fit:
    r"""The linear map with an offset that comes closest to b in least squares; directions of rounding are left out.

    $W = S_x^+ M$ with the scatter of a and the cross scatter. It needs clearly more rows than units of a. The way back is fitted the same
    way from b to a: the inverse of W would blow up its noise.

    Args:
        pairs: what it is fitted on.

    Raises:
        TooFewStimuliError: no more rows than units, where least squares fits anything.

    Source:
        Lenc & Vedaldi, "Understanding image representations by measuring their equivariance and equivalence", CVPR 2015.
    """
    if pairs.n <= max(pairs.a.d, pairs.b.d) + 1:
        raise TooFewStimuliError(
            f"{pairs.n} pairs of rows for {pairs.a.d} and {pairs.b.d} units: an affine map fits anything there. "
            "Use more rows, or method='ridge' or 'orthogonal'"
        )
    moments = pairs.moments
    weight, rank = _least_squares(moments)
    back, rank_back = _least_squares(moments.swap())
    return Fit(weight, back, told={"rank": rank, "rank_back": rank_back})


def _least_squares(moments: CrossMoments) -> tuple[Tensor, int]:
    if moments.x.trace <= 0:
        return torch.zeros_like(moments.cross), 0
    half = moments.x.whitener
    return half @ (half.T @ moments.cross), half.shape[1]

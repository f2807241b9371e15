"""The best rotation."""

from __future__ import annotations

import torch

from inscape.maps.base import Fit, PairedRows, map_method
from inscape.summaries.spectra import singular_vectors


@map_method(exact={"rotation", "permutation"}, source="Schönemann 1966")
def orthogonal(pairs: PairedRows, *, scale: bool = False) -> Fit:
    r"""The rotation (or reflection) that brings a closest to b; lengths and angles stay as they are.

    $W = U V^\top$ with $U S V^\top = X_c^\top Y_c$ minimizes $\lVert X_c W - Y_c \rVert_F$ over $W^\top W = I$; with different widths, over
    the maps that are a rotation of the narrower space. `scale=True` multiplies by $\operatorname{tr} S / \lVert X_c \rVert_F^2$. The way
    back is the transpose.

    Args:
        pairs: what it is fitted on.
        scale: also stretch all directions alike.

    Source:
        Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 1966.
    """
    moments = pairs.moments
    U, S, Vh = singular_vectors(moments.cross)
    turn, stretch = U @ Vh, 1.0
    if scale and moments.x.trace > 0 and float(S.sum()) > 0:
        stretch = float(S.sum()) / moments.x.trace
    rank = int((S > max(moments.cross.shape) * torch.finfo(S.dtype).eps * S[0]).sum()) if len(S) else 0
    return Fit(turn * stretch, turn.T / stretch, told={"rank": rank, "scale": stretch})

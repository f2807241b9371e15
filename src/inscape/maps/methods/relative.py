"""Through cosines with shared anchors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inscape.errors import DegenerateInputError, MapError
from inscape.maps.base import Fit, PairedRows, map_method


@map_method(exact={"rotation", "permutation"}, source="Moschella et al. 2023; inverted as in Maiorca et al. 2023")
def relative(pairs: PairedRows, *, anchors: int | None = None, cut: float = 1e-2, seed: int = 0) -> Fit:
    r"""Both spaces as cosines with the same anchor stimuli; needs the anchors alone in common.

    With unit rows A and B of the m anchors, about the mean of all rows, $r(x) = A x / \lVert x \rVert$ are coordinates that two spaces
    share when one is a rotation and a stretch of the other (`Map.relative`): whatever was trained on them for one space runs on the other,
    with no fit at all. The map to b solves $B y = A x$ in least squares, in the units of b's anchors, along the
    directions in which the anchors are spread.

    Args:
        pairs: what it is fitted on.
        anchors: how many pairs, drawn at random; twice the wider space, or all pairs where there are fewer.
        cut: directions of the anchors with singular values below this share of the largest are left out: solving for them blows up noise.
        seed: of the draw.

    Raises:
        MapError: more anchors than pairs, or none.
        DegenerateInputError: an anchor is the mean of its space, so it has no direction.

    Source:
        Moschella, Maiorca, Fumero, Norelli, Locatello & Rodolà, "Relative representations enable zero-shot latent space communication",
        ICLR 2023. Rows are centered here, which makes it blind to a shift as well.
    """
    wanted = min(pairs.n, 2 * max(pairs.a.d, pairs.b.d)) if anchors is None else anchors
    if not 1 <= wanted <= pairs.n:
        raise MapError(f"anchors={wanted} out of {pairs.n} pairs of rows; give a number from 1 to {pairs.n}")
    numbers = np.sort(np.random.default_rng(seed).permutation(pairs.n)[:wanted])
    X, Y = pairs.rows(numbers)
    moments = pairs.moments
    A, size_a = _units(X.double() - moments.x.mean, "a")
    B, size_b = _units(Y.double() - moments.y.mean, "b")
    # B y = A x; lengths follow by the ratio of the anchors' lengths.
    weight = (size_b / size_a) * (torch.linalg.pinv(B, rtol=cut) @ A).T
    back = (size_a / size_b) * (torch.linalg.pinv(A, rtol=cut) @ B).T
    return Fit(weight, back, {"anchors_a": A, "anchors_b": B}, {"anchors": wanted})


def _units(rows: Tensor, side: str) -> tuple[Tensor, float]:
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if not bool((length > 0).all()):
        raise DegenerateInputError(f"an anchor lies at the mean of {side}, so it has no direction; choose another seed or fewer anchors")
    return rows / length, float(length.square().mean().sqrt())

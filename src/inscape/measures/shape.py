"""Distances between representations as shapes: after the best rotation, with or without whitening."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.measures.spectrum import varying
from inscape.summaries import CrossMoments, Moments
from inscape.summaries.spectra import nuclear_norm


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.pi / 2),
    source="Williams et al. 2021, angular distance",
    higher="more different",
    symmetric=True,
    minimum=3,
    null="shrinks with d/n; π/2 for representations with nothing in common and n far above d",
)
def procrustes(pair: CrossMoments) -> float:
    r"""The angle between two representations after the best rotation: 0 when they are equal up to rotation, shift and scale.

    $\arccos\left(\lVert X_c^\top Y_c \rVert_* / (\lVert X_c \rVert_F \lVert Y_c \rVert_F)\right)$ with the nuclear norm $\lVert\cdot
    \rVert_*$, centered paired rows [n, p] and [n, q]. It is a metric: symmetric, and the triangle inequality holds.

    Args:
        pair: moments of both sides and across.

    Returns:
        An angle in radians, from 0 to π/2. Below 1e-7 it is rounding.

    Raises:
        DegenerateInputError: all rows of one input are equal.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Williams, Kunz, Kornblith & Linderman, "Generalized shape metrics on neural representations", NeurIPS 2021: the angular
        distance, with centering and the orthogonal group.

    Cost:
        n (p + q)² for the moments, shared with all pair measures of this family, and p q min(p, q) for the singular values.

    Bias:
        Too low for n below d: any two clouds can be rotated onto each other. Read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> line, other = np.array([[1.0, 0], [-1, 0], [0, 0]]), np.array([[1.0], [1], [-2]])
        >>> round(ix.measures.procrustes(line, other), 6)
        1.570796
    """
    varying(pair.x)
    varying(pair.y)
    cosine = pair.nuclear_norm / math.sqrt(pair.x.trace * pair.y.trace)
    return math.acos(min(1.0, cosine))


def distance(squares: float, shared: float) -> float:
    """The root of squares − 2 shared; 0 where the difference is no more than the rounding of its terms."""
    square = squares - 2 * shared
    return math.sqrt(square) if square > 16 * torch.finfo(torch.float64).eps * squares else 0.0


@measure(
    invariant={"translation", "rotation", "row_order"},
    sensitive={"scale", "linear", "unit_scale"},
    range=(0, math.inf),
    source="Williams et al. 2021, Euclidean distance",
    higher="more different",
    symmetric=True,
    undefined=(),
    minimum=2,
    null="near sqrt(|X|² + |Y|²) for representations with nothing in common and n far above d",
)
def procrustes_distance(pair: CrossMoments) -> float:
    r"""The distance between two representations after the best rotation, in the units of the activations.

    $\min_Q \lVert X_c Q - Y_c \rVert_F = \sqrt{\lVert X_c \rVert_F^2 + \lVert Y_c \rVert_F^2 - 2 \lVert X_c^\top Y_c \rVert_*}$ over
    orthogonal Q (the narrower side padded with zeros), centered paired rows [n, p] and [n, q]: size and shape. It is a metric.

    Args:
        pair: moments of both sides and across.

    Returns:
        A distance, 0 or more, in units of activation; it grows with sqrt(n). Below 1e-7 of the norms it is rounding.

    Raises:
        TooFewStimuliError: fewer than 2 rows.
        DegenerateInputError: the values leave the range of fp64.

    Source:
        Williams, Kunz, Kornblith & Linderman, "Generalized shape metrics on neural representations", NeurIPS 2021.

    Cost:
        n (p + q)² for the moments, shared with all pair measures of this family, and p q min(p, q) for the singular values.

    Bias:
        Too low for n below d: any two clouds can be rotated onto each other.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[3.0, 0], [-3, 0]])
        >>> round(ix.measures.procrustes_distance(X, np.array([[0.0, 1], [0, -1]])) ** 2, 6)
        8.0
    """
    return distance(pair.x.trace + pair.y.trace, pair.nuclear_norm)


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, 2),
    source="Ding et al. 2021",
    higher="more different",
    symmetric=True,
    minimum=3,
    null="shrinks with d/n; 2 for representations with nothing in common and n far above d",
)
def procrustes_normalized(pair: CrossMoments) -> float:
    r"""The squared distance of two representations after scaling each to unit norm and the best rotation.

    $2 - 2 \lVert X_c^\top Y_c \rVert_* / (\lVert X_c \rVert_F \lVert Y_c \rVert_F)$, centered paired rows [n, p] and [n, q]. Other
    libraries give half of it or its square root; `procrustes` is the angle whose cosine stands in it.

    Args:
        pair: moments of both sides and across.

    Returns:
        A squared distance, from 0 to 2.

    Raises:
        DegenerateInputError: all rows of one input are equal.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Ding, Denain & Steinhardt, "Grounding representation similarity with statistical testing", NeurIPS 2021.

    Cost:
        n (p + q)² for the moments, shared with all pair measures of this family, and p q min(p, q) for the singular values.

    Bias:
        Too low for n below d.

    Example:
        >>> import numpy as np, inscape as ix
        >>> line, other = np.array([[1.0, 0], [-1, 0], [0, 0]]), np.array([[1.0], [1], [-2]])
        >>> round(ix.measures.procrustes_normalized(line, other), 6)
        2.0
    """
    varying(pair.x)
    varying(pair.y)
    return 2 - 2 * min(1.0, pair.nuclear_norm / math.sqrt(pair.x.trace * pair.y.trace))


def _angle(pair: CrossMoments, map_x: Tensor, map_y: Tensor) -> float:
    """The angular distance of Xc Zx and Yc Zy after the best rotation, for symmetric Zx, Zy."""
    cosine = nuclear_norm(map_x @ pair.cross @ map_y)
    sizes = (float((z @ moments.scatter * z).sum()) for z, moments in ((map_x, pair.x), (map_y, pair.y)))
    return math.acos(min(1.0, cosine / math.sqrt(math.prod(sizes))))


def _checked_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise DegenerateInputError(f"alpha={alpha} is outside 0 to 1: 1 does not whiten at all (procrustes), 0 whitens fully")


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"unit_scale"},
    range=(0, math.pi / 2),
    source="Williams et al. 2021, generalized shape metrics (power family)",
    higher="more different",
    symmetric=True,
    minimum=3,
    null="shrinks with d/n, faster the more is whitened",
)
def shape_alpha(pair: CrossMoments, *, alpha: float = 0.5) -> float:
    r"""The angle between two representations after partial whitening and the best rotation: between `procrustes` and CCA.

    `procrustes` of $X_c Z_x$ and $Y_c Z_y$ with $Z = (C / s)^{-(1 - \alpha) / 2}$, C the covariance and s its mean eigenvalue: α = 1
    leaves the rows as they are, α = 0 whitens them, so that the cosine is the mean canonical correlation. Paired rows [n, p] and
    [n, q]. This family does not depend on scale or n; `shape_alpha_netrep` is the mix of another library.

    Args:
        pair: moments of both sides and across.
        alpha: how much of the variance structure counts, from 0 to 1.

    Returns:
        An angle in radians, from 0 to π/2; a metric for a fixed α.

    Raises:
        DegenerateInputError: all rows of one input are equal, or `alpha` is outside 0 to 1.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Williams, Kunz, Kornblith & Linderman, "Generalized shape metrics on neural representations", NeurIPS 2021.

    Cost:
        n (p + q)² for the moments, shared with all pair measures of this family, and p³ + q³.

    Bias:
        Too low for n near d, the more so the smaller α.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 3))
        >>> round(ix.measures.shape_alpha(X, X @ [[1, 2, 0], [0, 1, 5], [0, 0, 1]], alpha=0), 5)
        0.0
    """
    _checked_alpha(alpha)
    varying(pair.x)
    varying(pair.y)
    return _angle(pair, _power(pair.x, alpha), _power(pair.y, alpha))


def _spectrum(moments: Moments) -> tuple[Tensor, Tensor]:
    """Eigenvalues of the scatter above rounding, and their eigenvectors."""
    values, vectors = moments.eigenbasis
    kept = values > max(moments.n, moments.d) * torch.finfo(values.dtype).eps * values[-1]
    return values[kept], vectors[:, kept]


def _power(moments: Moments, alpha: float) -> Tensor:
    values, vectors = _spectrum(moments)
    return (vectors * (values / values.mean()) ** (-(1 - alpha) / 2)) @ vectors.T


@measure(
    invariant={"translation", "rotation", "row_order"},
    sensitive={"unit_scale"},
    range=(0, math.pi / 2),
    source="the library netrep",
    higher="more different",
    symmetric=True,
    minimum=3,
    null="shrinks with d/n, faster the more is whitened",
)
def shape_alpha_netrep(pair: CrossMoments, *, alpha: float = 0.5) -> float:
    r"""`shape_alpha` with the mix of the library netrep, which depends on the scale of the activations and on n.

    `procrustes` of $X_c Z_x$ and $Y_c Z_y$ with $Z = \alpha I + (1 - \alpha) S^{-1/2}$ and the scatter S = $X_c^\top X_c$. Paired rows
    [n, p] and [n, q]. Equal to `shape_alpha` at α = 0 and α = 1 alone; in between it changes when the activations are multiplied by a
    number, or the stimuli repeated.

    Args:
        pair: moments of both sides and across.
        alpha: from 0 to 1.

    Returns:
        An angle in radians, from 0 to π/2.

    Raises:
        DegenerateInputError: all rows of one input are equal, or `alpha` is outside 0 to 1.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        netrep, `LinearMetric(alpha)`; directions below rounding are left out here, where netrep cuts at 1e-7 absolutely.

    Cost:
        n (p + q)² for the moments, shared with all pair measures of this family, and p³ + q³.

    Bias:
        Too low for n near d.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 3))
        >>> round(ix.measures.shape_alpha_netrep(X, X @ [[0, 1, 0], [0, 0, 1], [1, 0, 0]]), 6)
        0.0
    """
    _checked_alpha(alpha)
    varying(pair.x)
    varying(pair.y)
    return _angle(pair, _mixed(pair.x, alpha), _mixed(pair.y, alpha))


def _mixed(moments: Moments, alpha: float) -> Tensor:
    values, vectors = _spectrum(moments)
    return alpha * torch.eye(moments.d, dtype=values.dtype) + (1 - alpha) * (vectors / values.sqrt()) @ vectors.T

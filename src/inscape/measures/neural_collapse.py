"""The four properties of neural collapse that need no classifier: variability, norms, angles, and their form for many classes."""

from __future__ import annotations

import math
import warnings

import torch
from torch import linalg

from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.base import measure
from inscape.measures.class_pairs import classes_of, pairs_of, tiles, unit_means
from inscape.measures.collapse import Scattered
from inscape.summaries import ClassMoments

_UNDER_LABELS = "no fixed value for labels that say nothing: class means are then noise of n_c rows each"


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Papyan et al. 2020, NC1",
    higher="less collapsed",
    undefined={"constant"},
    minimum=4,
    null=_UNDER_LABELS,
)
def nc1(classes: Scattered) -> float:
    r"""Variability inside the classes in units of the spread between their means, direction by direction.

    $\mathrm{tr}(\Sigma_W \Sigma_B^\dagger) / C$ for rows [n, d] with one label each: $\Sigma_W = \frac1n \sum_c \sum_{i \in c}
    (x_i - \mu_c)(x_i - \mu_c)^\top$ counts rows, $\Sigma_B = \frac1C \sum_c (\mu_c - \mu_G)(\mu_c - \mu_G)^\top$ counts classes, with
    $\mu_G$ the mean of the C class means. The pseudoinverse keeps the directions whose singular value exceeds rounding.

    Args:
        classes: moments by class, with the pooled scatter.

    Returns:
        A number without unit, 0 for classes that are points.

    Raises:
        DegenerateInputError: fewer than two classes with two rows, or equal class means.
        TooFewStimuliError: fewer than 4 rows.

    Warns:
        InscapeWarning: classes of one row, which are left out.

    Source:
        Papyan, Han & Donoho, "Prevalence of neural collapse during the terminal phase of deep learning training", PNAS 2020: NC1.

    Cost:
        n d² for the pooled scatter, then C d min(C, d).

    Bias:
        Too low where n_c is small: a class mean follows its own rows, and adds noise to the spread between the means.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[0.0], [2], [10], [12]])
        >>> round(ix.measures.nc1(X, ["a", "a", "b", "b"]), 6)
        0.02
    """
    found = classes_of(classes)
    values, vectors = found.spectrum
    kept = values > values[0] * max(found.means.shape) * 16 * torch.finfo(torch.float64).eps
    values, vectors = values[kept], vectors[:, kept]
    within = ((classes.within_scatter @ vectors) * vectors).sum(0) / found.rows
    # Σ_B† has the eigenvalues C/s², and the definition divides by C again.
    return float((within.clamp(min=0) / values.square()).sum())


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Papyan et al. 2020, NC1 as a ratio of traces",
    higher="less collapsed",
    undefined={"constant"},
    minimum=4,
    null="about n_c - 1 for labels that say nothing, with n_c rows in each class",
)
def nc1_trace(classes: ClassMoments) -> float:
    r"""Variability inside the classes in units of the spread between their means, all directions together.

    $\mathrm{tr}\,\Sigma_W / \mathrm{tr}\,\Sigma_B$ with $\Sigma_W$ over rows and $\Sigma_B$ over class means, as in `nc1`; it needs no
    scatter, so it is the form for wide sites.

    Args:
        classes: moments by class.

    Returns:
        A number without unit, 0 for classes that are points.

    Raises:
        DegenerateInputError: fewer than two classes with two rows, or equal class means.
        TooFewStimuliError: fewer than 4 rows.

    Warns:
        InscapeWarning: classes of one row, which are left out.

    Source:
        Papyan, Han & Donoho, PNAS 2020, NC1; as a quotient of traces in Hui, Belkin & Nakkiran 2022 and later work.

    Cost:
        n d, then C d.

    Bias:
        Too low where n_c is small, as for `nc1`.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[0.0], [2], [10], [12]])
        >>> ix.measures.nc1_trace(X, ["a", "a", "b", "b"])
        0.04
    """
    found = classes_of(classes)
    return float(found.within.sum()) / found.rows / (float(found.means.square().sum()) / found.count)


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Papyan et al. 2020, NC2, equinorm",
    higher="less collapsed",
    undefined={"constant"},
    minimum=4,
    null=_UNDER_LABELS,
)
def nc2_equinorm(classes: ClassMoments) -> float:
    r"""How unequal the distances of the class means from their center are.

    $\mathrm{std}_c \lVert \mu_c - \mu_G \rVert / \mathrm{mean}_c \lVert \mu_c - \mu_G \rVert$ for rows [n, d] with one label each, with
    the population standard deviation over classes and $\mu_G$ the mean of the class means.

    Args:
        classes: moments by class.

    Returns:
        A coefficient of variation; 0 when all class means lie equally far out.

    Raises:
        DegenerateInputError: fewer than two classes with two rows, or equal class means.
        TooFewStimuliError: fewer than 4 rows.

    Warns:
        InscapeWarning: classes of one row, which are left out.

    Source:
        Papyan, Han & Donoho, PNAS 2020, NC2: equinorm property of the class means.

    Cost:
        n d, then C d.

    Bias:
        Two classes always have 0. Noise of the means lengthens short ones more than long ones.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[0.0, 0], [0, 0], [1, 0], [1, 0], [0, 2], [0, 2]])
        >>> round(ix.measures.nc2_equinorm(X, [0, 0, 1, 1, 2, 2]), 4)
        0.2573
    """
    lengths = linalg.vector_norm(classes_of(classes).means, dim=1)
    return float(lengths.std(correction=0) / lengths.mean())


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, 1),
    source="Papyan et al. 2020, NC2, equiangular",
    higher="less collapsed",
    undefined={"constant"},
    minimum=4,
    null=_UNDER_LABELS,
)
def nc2_equiangular(classes: ClassMoments) -> float:
    r"""How unequal the angles between the class means are.

    The population standard deviation of $\cos(\mu_c - \mu_G,\, \mu_{c'} - \mu_G)$ over all pairs of different classes, for rows [n, d]
    with one label each. `nc2_max_angle` says how far the cosines are from the smallest ones possible.

    Args:
        classes: moments by class.

    Returns:
        A standard deviation of cosines; 0 when all angles are equal.

    Raises:
        DegenerateInputError: fewer than two classes with two rows, equal class means, or one at the center of all.
        TooFewStimuliError: fewer than 4 rows.

    Warns:
        InscapeWarning: classes of one row, which are left out.

    Source:
        Papyan, Han & Donoho, PNAS 2020, NC2: equiangular property of the class means.

    Cost:
        n d, then C² d / 2 in tiles of 2,048 classes.

    Bias:
        Two classes always have 0. In d < C - 1 units the angles cannot all be equal: use `gnc2` there.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[1.0, 0], [1, 0], [-1, 0], [-1, 0], [0, 1], [0, 1], [0, -1], [0, -1]])
        >>> round(ix.measures.nc2_equiangular(X, [0, 0, 1, 1, 2, 2, 3, 3]), 4)  # cosines -1, -1, 0, 0, 0, 0
        0.4714
    """
    found = classes_of(classes)
    mean, square, _ = _deviations(found.count, unit_means(found))
    return math.sqrt(max(0.0, square - mean**2))


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, 2),
    source="Papyan et al. 2020, NC2, maximal angle",
    higher="less collapsed",
    undefined={"constant"},
    minimum=4,
    null=_UNDER_LABELS,
)
def nc2_max_angle(classes: ClassMoments) -> float:
    r"""How far the cosines between class means are from the smallest that all of them can have.

    The mean of $\left| \cos(\mu_c - \mu_G,\, \mu_{c'} - \mu_G) + \frac{1}{C-1} \right|$ over all pairs of different classes, for rows
    [n, d] with one label each.

    Args:
        classes: moments by class.

    Returns:
        A difference of cosines; 0 for a simplex equiangular tight frame.

    Raises:
        DegenerateInputError: fewer than two classes with two rows, equal class means, or one at the center of all.
        TooFewStimuliError: fewer than 4 rows.

    Warns:
        InscapeWarning: classes of one row, which are left out.

    Source:
        Papyan, Han & Donoho, PNAS 2020, NC2: maximal-angle property of the class means.

    Cost:
        n d, then C² d / 2 in tiles of 2,048 classes.

    Bias:
        Two classes always have 0.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[1.0, 0], [1, 0], [-1, 0], [-1, 0], [0, 1], [0, 1], [0, -1], [0, -1]])
        >>> round(ix.measures.nc2_max_angle(X, [0, 0, 1, 1, 2, 2, 3, 3]), 4)  # |-1 + 1/3| and |0 + 1/3|
        0.4444
    """
    found = classes_of(classes)
    return _deviations(found.count, unit_means(found))[2]


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, 2),
    source="Papyan et al. 2020; Kothapalli 2023, distance to a simplex ETF",
    higher="less collapsed",
    undefined={"constant"},
    minimum=4,
    null=_UNDER_LABELS,
)
def nc2_etf(classes: ClassMoments) -> float:
    r"""The distance of the class means from a simplex equiangular tight frame, norms and angles together.

    $\left\lVert \frac{G}{\lVert G \rVert_F} - \frac{1}{\sqrt{C-1}} \left(I - \tfrac1C 1 1^\top\right) \right\rVert_F$ with
    $G = M M^\top$ for the centered class means M [C, d]; from the singular values of M, so G itself is never formed.

    Args:
        classes: moments by class.

    Returns:
        A distance between matrices of length 1, from 0 for a simplex equiangular tight frame to √2.

    Raises:
        DegenerateInputError: fewer than two classes with two rows, or equal class means.
        TooFewStimuliError: fewer than 4 rows.

    Warns:
        InscapeWarning: classes of one row, which are left out; or more classes than d + 1, which cannot reach 0.

    Source:
        Papyan, Han & Donoho, PNAS 2020, the simplex ETF; as one distance in Zhu, Ding, Zhou, Li, You, Sulam & Qu, "A geometric analysis of
        neural collapse with unconstrained features", NeurIPS 2021, eq. 8.

    Cost:
        n d, then C d min(C, d).

    Bias:
        Two classes always have 0. With C - 1 > d it is at least √(2 - 2√(d/(C-1))).

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.repeat(np.eye(3), 2, axis=0)
        >>> round(ix.measures.nc2_etf(X, [0, 0, 1, 1, 2, 2]), 6)
        0.0
    """
    found = classes_of(classes)
    room = found.means.shape[1]
    if found.count - 1 > room:
        text = f"{found.count} classes in {room} units cannot form a simplex, so 0 is out of reach; gnc2 has no such bound"
        warnings.warn(text, InscapeWarning, stacklevel=2)
    strength = (found.spectrum[0] / found.spectrum[0][0]).square()
    share = strength / linalg.vector_norm(strength)
    level = 1 / math.sqrt(found.count - 1)
    missing = found.count - 1 - share.shape[0]
    return math.sqrt(float((share - level).square().sum()) + missing * level**2)


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Wu & Papyan 2024, GNC2 with the logarithmic kernel",
    higher="less collapsed",
    undefined={"constant", "rank_one"},
    minimum=4,
    null=_UNDER_LABELS,
)
def gnc2(classes: ClassMoments) -> float:
    r"""How unevenly the directions of the class means cover the sphere; the form of NC2 for more classes than units.

    The coefficient of variation $\mathrm{std}(K) / |\mathrm{mean}(K)|$ of $K_{cc'} = \log \lVert u_c - u_{c'} \rVert^{-1}$ over all pairs
    of different classes, with $u_c$ the direction of $\mu_c - \mu_G$; rows [n, d] with one label each.

    Args:
        classes: moments by class.

    Returns:
        A number without unit; 0 when all directions are equally far from each other.

    Raises:
        DegenerateInputError: fewer than two classes with two rows, equal class means, one at the center, or two in one direction.
        TooFewStimuliError: fewer than 4 rows.

    Warns:
        InscapeWarning: classes of one row, which are left out.

    Source:
        Wu & Papyan, "Linguistic collapse: neural collapse in (large) language models", NeurIPS 2024: GNC2, after Liu, Yu, Weller &
        Schölkopf, "Generalizing and decoupling neural collapse via hyperspherical uniformity gap", ICLR 2023. The kernel on centered
        class means of length 1 is `log_kernel` of the package neural_collapse, by the authors of the former; the coefficient of variation
        is that of the package nc-toolbox.

    Cost:
        n d, then C² d / 2 in tiles of 2,048 classes.

    Bias:
        Two classes always have 0. Unstable where the mean distance is near 1, so that the mean of K is near 0.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[1.0, 0], [1, 0], [-1, 0], [-1, 0], [0, 1], [0, 1], [0, -1], [0, -1]])
        >>> round(ix.measures.gnc2(X, [0, 0, 1, 1, 2, 2, 3, 3]), 4)  # distances 2 and √2: K = -log 2, -log(2)/2
        0.3536
    """
    found = classes_of(classes)
    pairs, total, squares = 0, 0.0, 0.0
    shift: float | None = None
    for first, second, cosines in tiles(unit_means(found)):
        apart = pairs_of(first, second, cosines.neg_().add_(1))
        if apart.numel() == 0:
            continue
        if float(apart.min()) <= 1e-14:
            raise DegenerateInputError(f"two of the {found.count} class means lie in one direction from the center; the kernel is infinite")
        kernel = apart.mul_(2).log_().mul_(-0.5)
        shift = float(kernel.mean()) if shift is None else shift
        kernel -= shift
        pairs += kernel.numel()
        total += float(kernel.sum())
        squares += float(kernel @ kernel)
    mean = total / pairs
    deviation = math.sqrt(max(0.0, squares / pairs - mean**2))
    center = abs((shift or 0.0) + mean)
    if center == 0:
        raise DegenerateInputError("the mean of the kernel is 0 (the class means are at distance 1 on average); it has no relative spread")
    return deviation / center


def _deviations(count: int, directions: torch.Tensor) -> tuple[float, float, float]:
    """Mean, mean square and mean size of cos + 1/(C − 1) over pairs of different classes."""
    pairs, total, squares, sizes = 0, 0.0, 0.0, 0.0
    for first, second, cosines in tiles(directions):
        apart = pairs_of(first, second, cosines.add_(1 / (count - 1)))
        pairs += apart.numel()
        total, squares, sizes = total + float(apart.sum()), squares + float(apart @ apart), sizes + float(apart.abs().sum())
    return total / pairs, squares / pairs, sizes / pairs

"""What of a representation repeats itself: units that say the same, and objects that cannot be told apart."""

from __future__ import annotations

import math
import warnings
from typing import Annotated

import torch

from inscape.errors import DegenerateInputError, InscapeWarning, TooFewStimuliError
from inscape.measures.base import measure
from inscape.measures.spectrum import varying
from inscape.summaries import ClassMoments, Moments, Need

_ROUNDING = 1e-13  # a unit varies by rounding alone below this share of its mean


@measure(
    invariant={"translation", "permutation", "unit_scale", "row_order"},
    sensitive={"rotation", "linear"},
    range=(0, 1),
    source="Zbontar et al. 2021; Hua et al. 2021",
    higher="units more redundant",
    null="1 / (n - 1) for independent units",
)
def feature_correlation(moments: Moments) -> float:
    r"""The mean squared correlation between two different units: 0 when every unit says something of its own, 1 when all say the same.

    $\frac{1}{d (d - 1)} \sum_{i \ne j} r_{ij}^2$ with $r$ the correlation matrix of the units of the rows [n, d].

    Returns:
        A squared correlation, from 0 to 1.

    Raises:
        DegenerateInputError: fewer than two units vary.
        TooFewStimuliError: fewer than 2 rows.

    Warns:
        InscapeWarning: some units do not vary and are left out.

    Source:
        The redundancy term of Zbontar, Jing, Misra, LeCun & Deny, "Barlow Twins: self-supervised learning via redundancy reduction",
        ICML 2021, on one view, as Hua, Wang, Xue, Ren, Wang & Zhao, "On feature decorrelation in self-supervised learning", ICCV 2021.

    Cost:
        n d² for the scatter, shared with all spectral measures, then d².

    Bias:
        Too high by about 1 / (n - 1): correlations of few rows differ from 0 by chance.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[1.0, 1, 0], [-1, -1, 0], [0, 0, 1], [0, 0, -1]])
        >>> round(ix.measures.feature_correlation(X), 6)
        0.333333
    """
    varying(moments)
    variances = moments.scatter.diagonal()
    kept = variances > moments.n * (_ROUNDING * moments.mean).square()
    count, d = int(kept.sum()), moments.d
    if count < 2:
        raise DegenerateInputError(f"{count} of {d} units vary (shape [{moments.n:g}, {d}]); a correlation needs two")
    if count < d:
        warnings.warn(f"feature_correlation: {d - count} of {d} units do not vary and are left out", InscapeWarning, stacklevel=4)
    deviations = variances[kept].sqrt()
    r = moments.scatter[kept][:, kept] / deviations / deviations.unsqueeze(1)
    return min(1.0, max(0.0, (float(r.square().sum()) - float(r.diagonal().square().sum())) / (count * (count - 1))))


@measure(
    invariant={"translation", "rotation", "row_order"},
    sensitive=(),
    range=(1 - 1e-6, math.inf),
    source="Thilak et al. 2024, eq. 3 to 5",
    higher="more directions that tell objects apart",
    undefined={"constant"},
    minimum=3,
)
def lidar(classes: Annotated[ClassMoments, Need(scatter=True)], *, delta: float = 1e-4, eps: float = 1e-7) -> float:
    r"""The number of directions that tell objects apart, in units of how much views of one object differ.

    $\exp\left(-\sum_i p_i \log p_i\right)$ with $p_i = \lambda_i / \sum_j \lambda_j + \epsilon$ and $\lambda$ the eigenvalues of
    $(\Sigma_w + \delta I)^{-1/2}\, \Sigma_b\, (\Sigma_w + \delta I)^{-1/2}$: $\Sigma_b$ the covariance of the mean rows of the objects,
    $\Sigma_w$ the mean covariance within an object. The label of a row [d] is its object, its rows are augmented views.

    Args:
        classes: moments by object.
        delta: added to the within-object variance of every direction. It is absolute, so rescale rows to unit variance first where
            their variance is near it.
        eps: the constant of the paper.

    Returns:
        Directions, from 1 to about min(d, C - 1) for C objects.

    Raises:
        DegenerateInputError: one object only, all objects have one mean, or delta is not above 0.
        TooFewStimuliError: fewer than 3 rows, or no object has two of them.

    Source:
        Thilak, Huang, Saremi, Dinh, Goh, Nakkiran, Susskind & Littwin, "LiDAR: sensing linear probing performance in joint embedding SSL
        architectures", ICLR 2024, equations 3 to 5. The formula and delta 1e-4 agree with an independent implementation, in the package
        stable-pretraining, which divides the covariances by n - 1; the text of the paper could not be read for its constants. Objects
        weigh by their number of rows.

    Cost:
        n d² for the scatter within classes, then d³.

    Bias:
        Grows with the number of objects until it exceeds d; noise within few views of each object leaks into the between part.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[0.0, 1], [0, -1], [4, 1], [4, -1], [8, 1], [8, -1]])
        >>> round(ix.measures.lidar(X, [0, 0, 1, 1, 2, 2]), 3)
        1.0
    """
    count = len(classes.labels)
    if delta <= 0:
        raise DegenerateInputError(f"delta = {delta}: it keeps the division by the within-object variance finite and must be above 0")
    if count < 2:
        raise DegenerateInputError(f"all {classes.n:g} rows have the label '{next(iter(classes.labels))}'; at least two objects are needed")
    if classes.n <= count:
        raise TooFewStimuliError(f"{classes.n:g} rows of {count} objects: no object has two views, so nothing varies within")
    scale = float((classes.counts * classes.means.square().sum(1)).sum())
    if classes.between_trace <= 1e-26 * scale:
        raise DegenerateInputError(f"all {count} objects have the same mean row; nothing tells them apart")
    eye = torch.eye(classes.d, dtype=torch.float64, device=classes.means.device)
    values, vectors = torch.linalg.eigh(classes.within_scatter / classes.n + delta * eye)
    whitener = vectors / values.clamp(min=delta).sqrt()
    ratios = torch.linalg.eigvalsh(whitener.T @ (classes.between_scatter / classes.n) @ whitener).clamp(min=0)
    p = ratios / ratios.sum() + eps
    return math.exp(-float(torch.special.xlogy(p, p).sum()))

"""How rows spread over directions: entropies and volumes of the unit rows."""

from __future__ import annotations

import math
import warnings

import torch

from inscape.arrays import compute_dtype, row_blocks
from inscape.errors import DegenerateInputError, InscapeWarning, StoreMismatchError
from inscape.measures.base import measure
from inscape.summaries import DirectionMoments, Rows
from inscape.summaries.blocks import gram, unit_rows


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(0, math.inf),
    source="Kim et al. 2023, eq. 2",
    higher="more directions in use",
    undefined=(),
)
def von_neumann_entropy(directions: DirectionMoments) -> float:
    r"""The entropy of the spectrum of the unit rows: 0 when all point along one line, log d when they fill the space evenly.

    $-\sum_i \lambda_i \log \lambda_i$ with the eigenvalues $\lambda$ of $U^\top U / n$, $u_i = x_i / \lVert x_i \rVert$ for the rows
    [n, d] as they are; the eigenvalues sum to 1.

    Args:
        directions: second moments of the unit rows.

    Returns:
        Nats, from 0 to log min(n, d).

    Raises:
        DegenerateInputError: the rows hold NaN or infinity.
        TooFewStimuliError: fewer than 2 rows that are not zero.

    Warns:
        InscapeWarning: some rows are zero, have no direction and are left out.

    Source:
        Kim, Kang, Hwang, Shin & Rhee, "VNE: an effective method for improving deep representation by manipulating eigenvalue
        distribution", CVPR 2023, eq. 2.

    Cost:
        n d² for the second moments of the directions, and d³ for their eigenvalues.

    Bias:
        Too low for n below about 10 d, and it grows with n; compare values at equal n.

    Example:
        >>> import numpy as np, inscape as ix
        >>> corners = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        >>> round(ix.measures.von_neumann_entropy(corners), 6)
        0.693147
    """
    p = directions.eigenvalues
    _tell_zero("von_neumann_entropy", directions.zero_rows, directions.n)
    return max(0.0, -float(torch.special.xlogy(p, p).sum()))


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(0, math.inf),
    source="Yu et al. 2020, eq. 7",
    higher="a larger volume",
    undefined=(),
)
def coding_rate(directions: DirectionMoments, *, distortion: float = 0.5) -> float:
    r"""The volume that the unit rows span, in nats that it takes to code one of them up to a given distortion.

    $\frac{1}{2} \log \det\left(I + \frac{d}{\epsilon^2} \frac{U^\top U}{n}\right)$ with $u_i = x_i / \lVert x_i \rVert$ for the rows
    [n, d] as they are and $\epsilon^2$ the distortion.

    Args:
        directions: second moments of the unit rows.
        distortion: mean squared error of a coded unit row that is allowed, above 0.

    Returns:
        Nats, from 0 upward.

    Raises:
        DegenerateInputError: the rows hold NaN or infinity.
        TooFewStimuliError: fewer than 2 rows that are not zero.

    Warns:
        InscapeWarning: some rows are zero, have no direction and are left out.

    Source:
        Yu, Chan, You, Song & Ma, "Learning diverse and discriminative representations via the principle of maximal coding rate
        reduction", NeurIPS 2020, eq. 7, for rows on the sphere as there; distortion 0.5 is the default of their code.

    Cost:
        n d² for the second moments of the directions, and d³ for their eigenvalues.

    Bias:
        Too low for small n; it grows with d for the same shape, so compare values at equal d.

    Example:
        >>> import numpy as np, inscape as ix
        >>> corners = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        >>> round(ix.measures.coding_rate(corners), 6)
        1.098612
    """
    if distortion <= 0:
        raise ValueError(f"distortion = {distortion}; give the allowed mean squared error of a unit row, above 0, for instance 0.5")
    eigenvalues = directions.eigenvalues
    _tell_zero("coding_rate", directions.zero_rows, directions.n)
    return 0.5 * float(torch.log1p(directions.d / distortion * eigenvalues).sum())


@measure(
    invariant={"rotation", "row_order"},
    sensitive={"translation", "scale", "linear", "unit_scale"},
    range=(0, 1),
    source="Mu & Viswanath 2018, eq. 2; Arora et al. 2016",
    higher="more isotropic",
    undefined=(),
)
def partition_isotropy(rows: Rows) -> float:
    r"""The smallest over the largest partition function along principal directions: 1 when no direction is favored.

    $\min_c Z(c) / \max_c Z(c)$ with $Z(c) = \sum_i \exp(c^\top x_i)$ and $c$ the eigenvectors of $X^\top X$ with both signs, for the
    rows [n, d] as they are. It depends on the scale of the rows.

    Args:
        rows: the rows [n, d].

    Returns:
        A ratio, from 0 to 1.

    Raises:
        DegenerateInputError: the rows hold NaN or infinity.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Mu & Viswanath, "All-but-the-top: simple and effective postprocessing for word representations", ICLR 2018, eq. 2, after Arora,
        Li, Liang, Ma & Risteski, "A latent variable model approach to PMI-based word embeddings", TACL 2016. Both signs of each
        eigenvector, because the sign that a solver returns is arbitrary.

    Cost:
        2 n d² and d³.

    Bias:
        A single long row decides the maximum; the value falls as n grows.

    Example:
        >>> import numpy as np, inscape as ix
        >>> corners = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        >>> round(ix.measures.partition_isotropy(corners), 6)
        1.0
    """
    wide = rows.rows.double()
    largest = float(wide.abs().max()) or 1.0
    vectors = torch.linalg.eigh(gram(wide / largest)).eigenvectors
    plus: list[torch.Tensor] = []
    minus: list[torch.Tensor] = []
    for block in row_blocks(rows.n, rows.d):
        along = wide[block] @ vectors
        plus.append(along.logsumexp(0))
        minus.append(along.neg_().logsumexp(0))
    totals = torch.cat([torch.stack(plus).logsumexp(0), torch.stack(minus).logsumexp(0)])
    return math.exp(float(totals.min() - totals.max()))


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(-math.inf, 0),
    source="Wang & Isola 2020, eq. 2",
    higher="less evenly spread",
    undefined=(),
    null="about -2 t for directions spread evenly over many dimensions",
)
def uniformity(rows: Rows, *, t: float = 2.0) -> float:
    r"""How unevenly the unit rows cover the sphere: 0 when all are equal, about -2t when they are spread evenly.

    $\log \frac{2}{n(n-1)} \sum_{i<j} \exp(-t \lVert u_i - u_j \rVert^2)$ with $u_i = x_i / \lVert x_i \rVert$ for the rows [n, d] as
    they are; every pair counts.

    Args:
        rows: the rows [n, d].
        t: sharpness of the kernel.

    Returns:
        A logarithm, at most 0; the even sphere has about $-2t$ for large d, more for small d.

    Raises:
        DegenerateInputError: fewer than 2 rows are not zero, or the rows hold NaN or infinity.
        TooFewStimuliError: fewer than 2 rows.

    Warns:
        InscapeWarning: some rows are zero, have no direction and are left out.

    Source:
        Wang & Isola, "Understanding contrastive representation learning through alignment and uniformity on the hypersphere", ICML 2020,
        eq. 2: the uniformity loss.

    Cost:
        n² d in blocks; no n × n matrix.

    Bias:
        None: a mean over all pairs of different rows, before the logarithm.

    Example:
        >>> import numpy as np, inscape as ix
        >>> corners = np.array([[1.0, 0], [-1, 0]])
        >>> round(ix.measures.uniformity(corners), 6)
        -8.0
    """
    units, zero = _units(rows)
    n = units.shape[0]
    _tell_zero("uniformity", zero, n)
    size = max(1, 2**22 // n)
    parts: list[torch.Tensor] = []
    for start in range(0, n, size):
        exponents = (units[start : start + size] @ units.T).double().sub_(1).clamp_(max=0).mul_(2 * t)
        exponents[torch.arange(len(exponents)), torch.arange(start, start + len(exponents))] = -math.inf
        parts.append(exponents.logsumexp((0, 1)))
    return min(0.0, float(torch.stack(parts).logsumexp(0)) - math.log(n * (n - 1)))


@measure(
    invariant={"scale", "row_order"},
    sensitive={"translation", "rotation", "linear", "unit_scale"},
    range=(0, math.inf),
    source="Wang & Isola 2020, eq. 1",
    higher="more different",
    symmetric=True,
    undefined=(),
    null="2 for directions that have nothing to do with each other (power 2)",
    one_space=True,
)
def alignment(x: Rows, y: Rows, *, power: float = 2.0) -> float:
    r"""The mean distance between the directions of the two members of a pair: 0 when both views of every stimulus agree.

    $\frac{1}{n} \sum_i \lVert u_i - v_i \rVert^\alpha$ with $u_i = x_i / \lVert x_i \rVert$, $v_i = y_i / \lVert y_i \rVert$ for paired
    rows [n, d] of one space, such as two augmentations of each image or an image and its caption.

    Args:
        x: the first member of each pair.
        y: the second member.
        power: $\alpha$.

    Returns:
        A distance to the power, from 0 to $2^\alpha$.

    Raises:
        DegenerateInputError: a row is zero, or the rows hold NaN or infinity.
        TooFewStimuliError: fewer than 2 rows.
        StoreMismatchError: the two sides have different numbers of units: they are not of one space.

    Source:
        Wang & Isola, "Understanding contrastive representation learning through alignment and uniformity on the hypersphere", ICML 2020,
        eq. 1: the alignment loss.

    Cost:
        n d.

    Bias:
        None: a mean over pairs. A common offset of all rows makes it small; read it with `uniformity`.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[1.0, 0], [0, 1]])
        >>> round(ix.measures.alignment(X, X[::-1].copy()), 6)
        2.0
    """
    if x.d != y.d:
        raise StoreMismatchError(f"alignment needs rows of one space; X has {x.d} units (shape [{x.n}, {x.d}]), Y has {y.d}")
    need = "a direction needs rows that are not zero"
    u, v = unit_rows(x.rows.double(), x.rows, need), unit_rows(y.rows.double(), y.rows, need)
    return float(torch.linalg.vector_norm(u - v, dim=1).pow(power).mean())


def _units(rows: Rows) -> tuple[torch.Tensor, int]:
    """Rows over their length without those that are zero, in the dtype of products, and how many are zero."""
    wide = rows.rows.double()
    lengths = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    kept = lengths.squeeze(1) > 0
    if int(kept.sum()) < 2:
        raise DegenerateInputError(f"{int(kept.sum())} of {rows.n} rows have a direction, the others are zero; at least 2 are needed")
    return (wide / lengths)[kept].to(compute_dtype(rows.rows.dtype)), int((~kept).sum())


def _tell_zero(name: str, zero: int, left: float) -> None:
    if zero:
        warnings.warn(f"{name}: {zero} zero rows have no direction and are left out; {left:g} rows count", InscapeWarning, stacklevel=5)

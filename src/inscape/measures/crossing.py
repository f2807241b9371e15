"""Comparisons of two clouds of rows through a shared space, through anchors, or by how they are spread."""

from __future__ import annotations

import math
from typing import Annotated

from inscape.errors import DegenerateInputError, nearest
from inscape.measures.base import measure
from inscape.summaries.anchors import NearestCosines, RelativeRows
from inscape.summaries.base import Need
from inscape.summaries.spread import Spread

STATISTICS = ("magnitude", "concentricity", "uniformity")


@measure(
    invariant={"rotation", "scale"},
    sensitive={"linear", "unit_scale"},
    range=(-1, 1),
    source="Moschella et al. 2023",
    higher="more similar",
    symmetric=True,
    undefined=("constant",),
    minimum=4,
    null="the cosine of the mean relative representations: 0 for centered independent rows, near 1 with a common offset",
)
def relative_similarity(
    pair: Annotated[RelativeRows, Need(anchors="anchors", seed="seed", center="center")],
    *,
    anchors: int = 16,
    seed: int = 0,
    center: bool = True,
) -> float:
    r"""How alike the stimuli of two systems are when each is described by its cosines with the same anchor stimuli.

    The mean over stimuli of $\cos(r_X(i), r_Y(i))$ with $r_X(i) = (\cos(x_i, x_{a_1}), \dots, \cos(x_i, x_{a_m}))$ for m anchor rows
    chosen by a seed and left out; paired rows [n, p] and [n, q].

    Args:
        pair: cosines of relative representations.
        anchors: how many rows serve as anchors.
        seed: of their choice.
        center: subtract the anchors' mean first. The paper does not; without it a common offset makes everything alike.

    Returns:
        A cosine, from −1 to 1.

    Raises:
        DegenerateInputError: a row is zero about the center, as when all rows are equal.
        TooFewStimuliError: fewer than 4 rows, or not more than anchors.

    Source:
        Moschella, Maiorano, Fumero, Norelli, Locatello & Rodolà, "Relative representations enable zero-shot latent space
        communication", ICLR 2023.

    Cost:
        n m d for m anchors.

    Bias:
        Depends on the anchors; repeat it with other seeds, and read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> round(ix.measures.relative_similarity(X, 3 * X[:, ::-1]), 6)
        1.0
    """
    return max(-1.0, min(1.0, float(pair.cosines.mean())))


@measure(
    invariant={"scale", "row_order"},
    sensitive=set(),
    range=(-1, 1),
    source="Shukor & Cord 2024, as described in its abstract",
    higher="more similar",
    symmetric=True,
    undefined=(),
    minimum=1,
    null="about sqrt(2 log(n) / d) for independent directions",
    status="provisional",
    paired=False,
)
def ima_score(pair: NearestCosines) -> float:
    r"""How near the tokens of two modalities come to each other inside one model: implicit multimodal alignment.

    The mean over the rows of both sides of the largest cosine with a row of the other side, both sides weighing the same:
    $\frac{1}{2} \left( \frac{1}{n} \sum_i \max_j \cos(x_i, y_j) + \frac{1}{m} \sum_j \max_i \cos(x_i, y_j) \right)$. Rows [n, d] and [m, d]
    of one space; nothing is paired, and n and m may differ.

    Args:
        pair: largest cosines both ways.

    Returns:
        A cosine, from −1 to 1.

    Raises:
        DegenerateInputError: a row is zero and has no direction.
        StoreMismatchError: the sides have different numbers of units, so they are not of one space.

    Source:
        Shukor & Cord, "Implicit multimodal alignment: on the generalization of frozen LLMs to multimodal inputs", NeurIPS 2024: an
        alignment score by cosines of perceptual and textual tokens. The paper's own average over tokens was not at hand.

    Cost:
        n m d.

    Bias:
        Grows with the number of rows, since a maximum over more of them is larger; compare layers at the same n and m.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> round(ix.measures.ima_score(X, 2 * X[::-1]), 6)
        1.0
    """
    return max(-1.0, min(1.0, float(pair.forward.mean() + pair.backward.mean()) / 2))


@measure(
    invariant={"rotation", "row_order"},
    sensitive=set(),
    range=(0, math.inf),
    source="Klabunde et al. 2024 (ReSi)",
    higher="more different",
    symmetric=True,
    undefined=(),
    minimum=1,
    null="0 where both sides are drawn from one distribution",
    paired=False,
)
def statistics_difference(x: Spread, y: Spread, *, statistic: str = "concentricity") -> float:
    r"""The difference of one descriptive statistic of two clouds of rows; nothing is paired.

    $\lvert s(X) - s(Y) \rvert$ with s the magnitude $\lVert \bar{x} \rVert$, the concentricity (mean cosine of a row with $\bar{x}$), or
    the uniformity $\log \frac{1}{n^2} \sum_{i,j} e^{-2 \lVert x_i - x_j \rVert^2}$ (i = j included, rows as they are, so that it
    saturates for large activations). Rows [n, p] and [m, q].

    Args:
        x: spread of the first side.
        y: spread of the second side.
        statistic: "magnitude", "concentricity" or "uniformity".

    Returns:
        A difference, 0 or more, in units of the statistic.

    Raises:
        DegenerateInputError: a row or the mean row is zero, or the statistic is unknown.

    Source:
        Klabunde et al., "ReSi: a comprehensive benchmark for representational similarity measures", 2024 (magnitude, concentricity and
        uniformity difference).

    Cost:
        n² d.

    Bias:
        Too high by sampling noise of either side.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[3.0, 4], [3, 4]])
        >>> ix.measures.statistics_difference(X, 2 * X, statistic="magnitude")
        5.0
    """
    if statistic not in STATISTICS:
        raise DegenerateInputError(f"statistic={statistic!r} is unknown; nearest: {nearest(statistic, STATISTICS)}")
    return abs(float(getattr(x, statistic)) - float(getattr(y, statistic)))

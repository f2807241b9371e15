"""The topology of the cloud of rows: pieces that join and loops that close as the scale grows."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from inscape.arrays import format_bytes, parse_bytes
from inscape.errors import DegenerateInputError, MemoryBudgetError, require
from inscape.measures.base import measure
from inscape.results import Curve
from inscape.summaries import Landmarks, Need

_SHOWN = 128  # the longest bars that a curve holds
_STEPS = 32  # scales of a Betti curve
_BYTES = 170  # per pair of landmarks: the distance, a column to reduce, its pivot and some entries of the reduced column

Spread = Annotated[Landmarks, Need(count="landmarks")]


@measure(
    invariant={"translation", "rotation", "row_order"},
    sensitive={"scale", "linear", "unit_scale"},
    range=(0, math.inf),
    source="Edelsbrunner et al. 2002, dimension 0",
    higher="pieces further apart",
    undefined=(),
    status="provisional",
    repeatable=False,
)
def persistence_h0(marks: Spread, *, landmarks: int = 500) -> Curve:
    r"""How far apart the pieces of the cloud are: the total length of its bars of connected components.

    Every landmark is a piece at scale 0; two pieces become one at the scale of the shortest distance between them. The scales at which that
    happens are the edges of a minimum spanning tree of the landmarks of the rows [n, d]; the value is their sum.

    Args:
        marks: rows far apart, with their distances.
        landmarks: most rows that are used, chosen each as the farthest from those before.

    Returns:
        A curve of deaths over births (all births are 0; the 128 longest bars); its value is the sum of all lengths, in the rows' unit.

    Raises:
        DegenerateInputError: the rows hold NaN or infinity, or fewer than 2 landmarks are asked for.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Edelsbrunner, Letscher & Zomorodian, "Topological persistence and simplification", Discrete & Computational Geometry 2002, for the
        Vietoris-Rips filtration by distance; in dimension 0 it is the minimum spanning tree.

    Cost:
        landmarks n d for the choice, shared by all measures of topology, then landmarks². No interval: it would choose anew each time.

    Bias:
        Grows with the number of landmarks; compare at equal ones. Landmarks are far apart, so outliers are always among them.

    Example:
        >>> import numpy as np, inscape as ix
        >>> ix.measures.persistence_h0(np.array([[0.0], [1], [5]])).values
        (4.0, 1.0)
    """
    bars = marks.deaths[::-1]
    return Curve(float(bars.sum()), axis="birth", at=[0.0] * len(bars[:_SHOWN]), values=bars[:_SHOWN])


@measure(
    invariant={"translation", "rotation", "row_order"},
    sensitive={"scale", "linear", "unit_scale"},
    range=(0, math.inf),
    source="Edelsbrunner et al. 2002, dimension 1",
    higher="a wider loop",
    undefined=(),
    status="provisional",
    repeatable=False,
)
def persistence_h1(marks: Spread, *, landmarks: int = 200, memory: str = "1GB") -> Curve:
    r"""How wide the widest loop of the cloud is: the longest bar of one-dimensional holes.

    A loop is born at the scale where a ring of landmarks of the rows [n, d] closes and dies where triangles fill it; the value is the
    longest span between the two, 0 without loops. Needs the extra `topology`.

    Args:
        marks: rows far apart, with their distances.
        landmarks: most rows that are used, chosen each as the farthest from those before.
        memory: refused before the start where the estimate is above this.

    Returns:
        A curve of deaths over births (the 128 longest bars); its value is the longest length, in the rows' unit.

    Raises:
        DegenerateInputError: the rows hold NaN or infinity, or fewer than 2 landmarks are asked for.
        TooFewStimuliError: fewer than 2 rows.
        MemoryBudgetError: so many landmarks may take more than `memory`.
        MissingExtraError: the package gudhi is not installed.

    Source:
        Edelsbrunner, Letscher & Zomorodian, "Topological persistence and simplification", Discrete & Computational Geometry 2002, for the
        Vietoris-Rips filtration; computed by the Gudhi package.

    Cost:
        landmarks n d for the choice, then up to landmarks³ and more: seconds at 500 landmarks, minutes at 1,500 where there are loops.
        No interval.

    Bias:
        Grows with the sampling density as small loops fill; noise makes many short bars, so compare the longest with the second.

    Example:
        >>> import numpy as np, inscape as ix
        >>> square = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
        >>> round(float(ix.measures.persistence_h1(square)), 4)
        0.4142
    """
    require("gudhi", "topology", "persistence_h1")
    require("sklearn", "topology", "persistence_h1")
    count = len(marks.ids)
    need, budget = _BYTES * count**2, parse_bytes(memory)
    if need > budget:
        fits = int((budget / _BYTES) ** 0.5)
        raise MemoryBudgetError(
            f"loops of {count} landmarks may take {format_bytes(need)}, above memory={memory!r}; use landmarks={fits}, or allow more memory"
        )
    from gudhi.sklearn.rips_persistence import RipsPersistence

    distances = marks.distances.cpu().numpy()
    largest = float(distances.max())
    if count < 4 or largest == 0:
        return Curve(0.0, axis="birth", at=(), values=())
    # In units of the largest distance: a loop of very small or very large rows is a loop.
    bars = np.asarray(RipsPersistence(1, input_type="full distance matrix").fit_transform([distances / largest])[0]) * largest
    lengths = bars[:, 1] - bars[:, 0]
    order = np.argsort(-lengths, kind="stable")[:_SHOWN]
    longest = float(lengths.max()) if len(lengths) else 0.0
    return Curve(longest, axis="birth", at=bars[order, 0].tolist(), values=bars[order, 1])


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Chintakunta et al. 2015, dimension 0",
    higher="pieces join at more even scales",
    status="provisional",
    repeatable=False,
)
def persistence_entropy(marks: Spread, *, landmarks: int = 500) -> float:
    r"""How evenly the pieces of the cloud join as the scale grows, by the entropy of the lengths of their bars.

    $-\sum_i p_i \log p_i$ with $p_i = l_i / \sum_j l_j$ and $l$ the lengths of the bars of connected components (see `persistence_h0`)
    of the landmarks of the rows [n, d].

    Args:
        marks: rows far apart, with their distances.
        landmarks: most rows that are used, chosen each as the farthest from those before.

    Returns:
        Nats, from 0 to log(landmarks - 1).

    Raises:
        DegenerateInputError: all rows are equal, or fewer than 2 landmarks are asked for.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Chintakunta, Gentimis, Gonzalez-Diaz, Jimenez & Krim, "An entropy-based persistence barcode", Pattern Recognition 2015, on the bars
        of dimension 0.

    Cost:
        landmarks n d for the choice, shared by all measures of topology, then landmarks². No interval.

    Bias:
        Close to its maximum for any even cloud; it grows with the number of landmarks, so compare at equal ones.

    Example:
        >>> import numpy as np, inscape as ix
        >>> round(ix.measures.persistence_entropy(np.array([[0.0], [1], [2]])), 6)
        0.693147
    """
    total = float(marks.deaths.sum())
    if total <= 0:
        raise DegenerateInputError(f"all {marks.n} rows are equal (shape [{marks.n}, {marks.d}]); there are no bars")
    p = marks.deaths[marks.deaths > 0] / total
    return max(0.0, -float((p * np.log(p)).sum()))


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Betti numbers of dimension 0 over scales",
    higher="pieces that stay apart longer",
    status="provisional",
    repeatable=False,
)
def betti_curve(marks: Spread, *, landmarks: int = 500) -> Curve:
    r"""The number of pieces into which the cloud falls at every scale, and how late they join.

    The curve counts the connected components of the landmarks of the rows [n, d] when those closer than a scale are joined, over 32 scales
    from 0 to the one at which all are one piece, which is 1. The value is the mean over the bars of their length on that axis: near 1 where
    all join at once, near 0 where most join early and a few far groups late.

    Args:
        marks: rows far apart, with their distances.
        landmarks: most rows that are used, chosen each as the farthest from those before.

    Returns:
        A curve of counts over relative scales; its value is a share from 0 to 1.

    Raises:
        DegenerateInputError: all rows are equal, or fewer than 2 landmarks are asked for.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Zomorodian & Carlsson, "Computing persistent homology", Discrete & Computational Geometry 2005: Betti numbers, here of dimension 0,
        as a function of scale. The normalization is a choice of this library.

    Cost:
        landmarks n d for the choice, shared by all measures of topology, then landmarks². No interval.

    Bias:
        Landmarks are far apart, so small gaps inside dense parts are not seen when there are more rows than landmarks.

    Example:
        >>> import numpy as np, inscape as ix
        >>> ix.measures.betti_curve(np.array([[0.0], [1], [5]])).values[:2]
        (3.0, 3.0)
    """
    largest = float(marks.deaths[-1])
    if largest <= 0:
        raise DegenerateInputError(f"all {marks.n} rows are equal (shape [{marks.n}, {marks.d}]); they are one piece at every scale")
    scales = np.linspace(0, 1, _STEPS)
    counts = 1 + len(marks.deaths) - np.searchsorted(marks.deaths / largest, scales, side="right")
    return Curve(float(marks.deaths.mean()) / largest, axis="relative scale", at=scales.tolist(), values=counts)

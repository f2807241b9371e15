"""How far the classes of a labeled representation have drawn together."""

from __future__ import annotations

import math

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.summaries import ClassMoments


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Fisher 1936, ratio of traces",
    higher="classes further apart",
    undefined={"constant"},
    minimum=3,
    null="about (C - 1) / (n - C) for labels that say nothing, with C classes",
)
def class_separation(classes: ClassMoments) -> float:
    r"""The spread between class means in units of the spread inside classes.

    $\sum_c n_c \lVert \mu_c - \mu \rVert^2 \,/\, \sum_c \sum_{i \in c} \lVert x_i - \mu_c \rVert^2$ for rows [n, d] with one label
    each; the ratio of the traces of the between-class and within-class scatter.

    Args:
        classes: moments by class.

    Returns:
        A ratio without unit, from 0 (equal class means) upward; it grows without bound as classes collapse to points.

    Raises:
        DegenerateInputError: one class only, or no spread inside any class.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 1936: between over within, with traces in
        place of one direction.

    Cost:
        n d, plus the class means: C d numbers.

    Bias:
        Too high by about (C - 1) / (n - C) of total spread: class means of few rows differ by chance.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[0.0], [2], [10], [12]])
        >>> ix.measures.class_separation(X, ["a", "a", "b", "b"])
        25.0
    """
    count = len(classes.labels)
    if count < 2:
        raise DegenerateInputError(f"all {classes.n:g} rows have the label '{next(iter(classes.labels))}'; at least two classes are needed")
    between = classes.between_trace
    within = float(classes.within_trace.sum())
    # Equal rows of a class differ from their computed mean by rounding, which is relative to where they lie.
    if within <= 1e-26 * float((classes.counts * classes.means.square().sum(1)).sum()):
        raise DegenerateInputError(f"no class has any spread inside ({count} classes, {classes.n:g} rows); the ratio has no finite value")
    return between / within

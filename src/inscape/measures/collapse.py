"""How far the classes of a labeled representation have drawn together."""

from __future__ import annotations

import math
import warnings
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, linalg

from inscape.errors import DegenerateInputError, InscapeWarning, TooFewStimuliError
from inscape.measures.base import measure
from inscape.measures.class_pairs import Classes, cdnv_tiles, classes_of
from inscape.results import Curve
from inscape.summaries import ClassMoments, Need

Scattered = Annotated[ClassMoments, Need(scatter=True)]


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


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Galanti et al. 2022, definition 1",
    higher="less collapsed",
    undefined={"constant"},
    minimum=4,
    null="about (n_c - 1) / 2 for labels that say nothing, with n_c rows in each class",
)
def cdnv(classes: ClassMoments) -> float:
    r"""The variance inside two classes over the squared distance of their means, averaged over pairs of classes.

    The mean of $\frac{v_c + v_{c'}}{2 \lVert \mu_c - \mu_{c'} \rVert^2}$ over all pairs of different classes, with
    $v_c = \frac{1}{n_c} \sum_{i \in c} \lVert x_i - \mu_c \rVert^2$; rows [n, d] with one label each. Every pair counts alike, however
    many rows its classes have.

    Args:
        classes: moments by class.

    Returns:
        A ratio without unit; 0 for classes that are points.

    Raises:
        DegenerateInputError: fewer than two classes with two rows, or equal class means.
        TooFewStimuliError: fewer than 4 rows.

    Warns:
        InscapeWarning: classes of one row, which are left out, and pairs of classes with equal means, which have no value.

    Source:
        Galanti, György & Hutter, "On the role of neural collapse in transfer learning", ICLR 2022, definition 1: class-distance
        normalized variance.

    Cost:
        n d, then C² d / 2 in tiles of 2,048 classes.

    Bias:
        Too low where n_c is small: noise moves class means apart. One pair with near means can carry the average; see
        `linguistic_collapse` for medians.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[0.0], [2], [10], [12]])
        >>> ix.measures.cdnv(X, ["a", "a", "b", "b"])
        0.01
    """
    found = classes_of(classes)
    total, pairs = 0.0, 0
    for _, _, values, known in cdnv_tiles(found):
        total, pairs = total + float(values.sum()), pairs + int(known.sum())
    _tell_equal(found, pairs)
    return total / pairs


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Wu & Papyan 2024; Galanti et al. 2022, by class size",
    higher="less collapsed",
    undefined={"constant"},
    minimum=4,
    null="about (n_c - 1) / 2 for labels that say nothing, with n_c rows in each class",
)
def linguistic_collapse(classes: ClassMoments) -> Curve:
    r"""How far the contexts of each next token have drawn together, over tokens from rare to frequent.

    For every class c the mean over the other classes of $\frac{v_c + v_{c'}}{2 \lVert \mu_c - \mu_{c'} \rVert^2}$, as in `cdnv`; the
    value is the median over classes, the curve the medians over classes of 2 to 3, 4 to 7, 8 to 15, … rows. Made for the next token as
    label (`labels="next_token"`) and tens of thousands of classes: one pass over the rows, then tiles of pairs.

    Args:
        classes: moments by class.

    Returns:
        A curve over the rows of a class, at the lower end of each octave that occurs; its value is the median over all classes, a ratio
        without unit.

    Raises:
        DegenerateInputError: fewer than two classes with two rows, or equal class means.
        TooFewStimuliError: fewer than 4 rows.

    Warns:
        InscapeWarning: classes of one row, which are left out, and pairs of classes with equal means, which have no value.

    Source:
        Wu & Papyan, "Linguistic collapse: neural collapse in (large) language models", NeurIPS 2024, who average over all pairs of
        tokens; the median and the split by frequency are this library's.

    Cost:
        n d, then C² d / 2 in tiles of 2,048 classes; C d numbers of memory.

    Bias:
        Too low for rare classes, about (n_c - 1) / n_c of the value: their means follow their own rows. Compare within an octave.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[0.0], [2], [10], [12], [20], [22], [24], [26]])
        >>> ix.measures.linguistic_collapse(X, [0, 0, 1, 1, 2, 2, 2, 2]).at
        (2, 4)
    """
    found = classes_of(classes)
    sums, partners = torch.zeros_like(found.within), torch.zeros_like(found.within)
    for first, second, values, known in cdnv_tiles(found):
        sums[first] += values.sum(1)
        sums[second] += values.sum(0)
        partners[first] += known.sum(1)
        partners[second] += known.sum(0)
    _tell_equal(found, int(partners.sum()) // 2)
    each = (sums / partners.clamp(min=1))[partners > 0].cpu().numpy()
    octaves = np.floor(np.log2(found.counts[partners > 0].cpu().numpy())).astype(int)
    at = sorted(set(octaves.tolist()))
    return Curve(float(np.median(each)), axis="rows", at=[2**one for one in at], values=[np.median(each[octaves == one]) for one in at])


@measure(
    invariant={"translation", "linear", "row_order"},
    sensitive=(),
    range=(0, 1),
    source="Xu & Liu 2023, variability collapse index",
    higher="less collapsed",
    undefined={"constant"},
    minimum=4,
    null="about 1 - d / n for labels that say nothing",
)
def variability_collapse(classes: Scattered) -> float:
    r"""The share of variability that the classes do not explain, in coordinates in which every direction counts alike.

    $1 - \mathrm{tr}(\Sigma_T^\dagger \Sigma_B) / \mathrm{rank}(\Sigma_B)$ for rows [n, d] with one label each, where $\Sigma_T$ is the
    covariance of the rows and $\Sigma_B = \sum_c \frac{n_c}{n} (\mu_c - \mu)(\mu_c - \mu)^\top$ that of their class means. Any invertible
    linear map leaves it as it is, unlike `nc1`, `nc1_trace` and `cdnv`.

    Args:
        classes: moments by class, with the pooled scatter.

    Returns:
        From 0 (every class is a point) to 1 (class means are equal).

    Raises:
        DegenerateInputError: fewer than two classes with two rows, or equal class means.
        TooFewStimuliError: fewer than 4 rows, or no more rows than the rows have directions, where the value is 0 whatever the labels.

    Warns:
        InscapeWarning: classes of one row, which are left out.

    Source:
        Xu & Liu, "Quantifying the variability collapse of neural networks", ICML 2023: the variability collapse index; the form with
        counts as weights, which for balanced classes is the paper's.

    Cost:
        n d² for the pooled scatter, then d³ and C d².

    Bias:
        Too low by about d / n: in many directions few rows are explained by chance. Take n well above d.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.array([[0.0], [2], [10], [12]])
        >>> round(ix.measures.variability_collapse(X, ["a", "a", "b", "b"]), 6)  # 1 / 26
        0.038462
    """
    found = classes_of(classes)
    mean = found.counts @ found.raw_means / found.rows
    between = (found.raw_means - mean) * (found.counts / found.rows).sqrt().unsqueeze(1)
    total = classes.within_scatter / found.rows + between.T @ between
    whitener = _whitener(total)
    if whitener.shape[1] >= found.rows - 1:
        raise TooFewStimuliError(
            f"{found.rows:g} rows span {whitener.shape[1]} directions, so labels explain all of them by chance; use more rows than units"
        )
    inside = between @ whitener
    if found.count > 4 * found.means.shape[1]:
        shares = linalg.eigvalsh(inside.T @ inside).clamp(0, 1).sqrt()
    else:
        shares = linalg.svdvals(inside).clamp(max=1)
    explained = shares[shares > 1e-6].square()
    if explained.numel() == 0:
        raise DegenerateInputError(f"the means of the {found.count} classes are all equal; there is nothing between the classes")
    return max(0.0, 1 - float(explained.mean()))


def _whitener(covariance: Tensor) -> Tensor:
    """A map [d, r] that makes a covariance the identity on its range; units are brought to one scale first, which costs no digits."""
    scale = covariance.diagonal().sqrt()
    used = scale > 0
    safe = torch.where(used, scale, 1.0)
    values, vectors = linalg.eigh(covariance / safe / safe.unsqueeze(1))
    kept = values > values[-1] * covariance.shape[0] * 16 * torch.finfo(torch.float64).eps
    return vectors[:, kept] / values[kept].sqrt() * (used / safe).unsqueeze(1)


def _tell_equal(found: Classes, known: int) -> None:
    """Counts the pairs of classes with equal means, which have no value."""
    pairs = found.count * (found.count - 1) // 2
    if known == 0:
        raise DegenerateInputError(f"the means of the {found.count} classes are all equal; no pair has a value")
    if known < pairs:
        text = f"{pairs - known} of {pairs} pairs of classes have equal means and are left out"
        warnings.warn(text, InscapeWarning, stacklevel=3)

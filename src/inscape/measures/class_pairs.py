"""What measures of collapse share: the classes that count, their centered means, and all pairs of them in tiles."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, linalg

from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.summaries import ClassMoments

# Classes per side of a tile: its distances take 32 MB, whatever the number of classes.
_TILE = 2048

# Class means that lie closer than this share of their length differ by the rounding of fp64 alone.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class Classes:
    """The classes with at least two rows.

    Attributes:
        labels: their labels, [C].
        counts: their rows, [C].
        raw_means: their means, [C, d].
        within: Σ‖x−μ_c‖² of each, [C].
    """

    labels: np.ndarray
    counts: Tensor
    raw_means: Tensor
    within: Tensor

    @property
    def count(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @property
    def rows(self) -> float:
        """Number of rows in them."""
        return float(self.counts.sum())

    @property
    def center(self) -> Tensor:
        """The mean of the class means, every class counting once, [d]."""
        return self.raw_means.mean(0)

    @cached_property
    def means(self) -> Tensor:
        """The class means less their mean, [C, d]."""
        return self.raw_means - self.center

    @cached_property
    def variances(self) -> Tensor:
        """Σ‖x−μ_c‖² / n_c of each class, [C]."""
        return self.within / self.counts

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Singular values, descending, and right singular vectors [d, r] of the centered means; at most C − 1 of them."""
        most = min(self.count - 1, self.means.shape[1])
        if self.count > 4 * self.means.shape[1]:  # then no direction is missing for want of classes, and the small side is far cheaper
            squares, columns = linalg.eigh(self.means.T @ self.means)
            return squares.flip(0).clamp(min=0).sqrt(), columns.flip(1)
        _, values, vectors = linalg.svd(self.means, full_matrices=False)
        return values[:most], vectors[:most].T


def classes_of(classes: ClassMoments) -> Classes:
    """The classes of two rows or more; the others are left out, and a warning counts them.

    Raises:
        DegenerateInputError: fewer than two such classes, or their means are all equal.
    """
    kept = (classes.counts >= 2).cpu()
    count, total = int(kept.sum()), len(classes.labels)
    if count < 2:
        raise DegenerateInputError(
            f"{count} of {total} classes have at least two rows ({classes.n:g} rows in all); two such classes are needed"
        )
    if count < total:
        text = f"{total - count} of {total} classes have one row and are left out; {count} classes count"
        warnings.warn(text, InscapeWarning, stacklevel=3)
    if count == total:
        found = Classes(classes.labels, classes.counts, classes.means, classes.within_trace)
    else:
        found = Classes(classes.labels[kept.numpy()], classes.counts[kept], classes.means[kept], classes.within_trace[kept])
    if float(found.means.abs().amax()) <= _ROUNDING * float(found.raw_means.abs().amax()):
        raise DegenerateInputError(f"the means of the {count} classes are all equal; there is nothing between the classes")
    return found


def unit_means(found: Classes) -> Tensor:
    """The centered class means divided by their lengths, [C, d].

    Raises:
        DegenerateInputError: a class mean lies at the center, so it has no direction.
    """
    lengths = linalg.vector_norm(found.means, dim=1)
    bad = lengths <= _ROUNDING * float(linalg.vector_norm(found.raw_means, dim=1).max())
    if bool(bad.any()):
        label = found.labels[int(bad.nonzero()[0])]
        raise DegenerateInputError(f"the mean of class {label!r} is the mean of all class means, so it has no direction; leave it out")
    return found.means / lengths.unsqueeze(1)


def tiles(points: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """All pairs of points [C, d] in tiles of the upper half: both ranges and inner products [a, b]; both ranges are one on the diagonal."""
    count = points.shape[0]
    for start in range(0, count, _TILE):
        first = slice(start, min(count, start + _TILE))
        for other in range(start, count, _TILE):
            second = slice(other, min(count, other + _TILE))
            yield first, second, points[first] @ points[second].T


def pairs_of(first: slice, second: slice, values: Tensor) -> Tensor:
    """The values of a tile [a, b] that belong to pairs i < j, in one axis."""
    if first != second:
        return values.flatten()
    i, j = torch.triu_indices(len(values), len(values), 1)
    return values[i, j]


def cdnv_tiles(found: Classes) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """The class-distance normalized variances (v_i + v_j) / (2 ‖μ_i − μ_j‖²) of all pairs i < j in tiles.

    Returns:
        Both ranges, the values [a, b] (0 where a pair has none), and which pairs i < j have a value: those whose means differ.
    """
    squares = found.means.square().sum(1)
    for first, second, products in tiles(found.means):
        sums = squares[first].unsqueeze(1) + squares[second]
        distances = products.mul_(-2).add_(sums)
        known = distances > sums.mul_(_ROUNDING)
        if first == second:
            known = known.triu_(1)
        spread = found.variances[first].unsqueeze(1) + found.variances[second]
        yield first, second, spread.div_(distances.mul_(2)).masked_fill_(~known, 0.0), known

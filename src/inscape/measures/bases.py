"""Orthonormal bases of two sites' centered rows, from moments or, where these have lost digits, from the rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, linalg

from inscape.arrays import row_blocks
from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.base import RowRoute
from inscape.measures.spectrum import varying
from inscape.summaries import CrossMoments, Moments
from inscape.summaries.spectra import singular_values, singular_vectors

_EPS = torch.finfo(torch.float64).eps
# Above this condition of a scatter (its rows have the square root of it) whitening loses more than ten digits' worth of guard.
CONDITION = 1e6


@dataclass(frozen=True)
class Bases:
    """Two orthonormal bases Qx, Qy of the centered rows, in order of ascending variance, known by their products.

    Attributes:
        n: number of rows.
        p: units of X.
        q: units of Y.
        overlap: QxᵀQy, [rank x, rank y].
        loading_x: QxᵀXc, [rank x, p].
        loading_y: QyᵀYc, [rank y, q].
        pair: the moments that the bases come from, which keep the singular values of `overlap` for all measures.
    """

    n: float
    p: int
    q: int
    overlap: Tensor
    loading_x: Tensor
    loading_y: Tensor
    pair: CrossMoments | None = None

    @property
    def rank(self) -> int:
        """The smaller of the two ranks."""
        return min(self.overlap.shape)

    @cached_property
    def correlations(self) -> Tensor:
        """Canonical correlations, descending, [rank]."""
        return singular_values(self.overlap).clamp(max=1) if self.pair is None else self.pair.canonical_correlations

    def swap(self) -> Bases:
        """The same with X and Y exchanged."""
        return Bases(self.n, self.q, self.p, self.overlap.T, self.loading_y, self.loading_x, self.pair)


def bases_of_moments(pair: CrossMoments, name: str) -> Bases:
    """Bases from moments; a warning tells how many digits an ill-conditioned scatter leaves.

    Raises:
        DegenerateInputError: all rows of one input are equal.
    """
    varying(pair.x)
    varying(pair.y)
    overlap = pair.overlap  # first: its eigenbases hold the eigenvalues that are asked for next
    worst = max(float(kept[0] / kept[-1]) for kept in (_above_cut(moments) for moments in (pair.x, pair.y)))
    if worst > CONDITION:
        warnings.warn(
            f"{name} from moments: the condition of a scatter is {worst:.1e}, above {CONDITION:.0e}, so about "
            f"{max(0, 16 - math.log10(worst)):.0f} digits are left; ix.measures.{name}(X, Y) on the rows keeps twice as many",
            InscapeWarning,
            stacklevel=5,
        )
    return Bases(pair.n, pair.x.units, pair.y.units, overlap, pair.x.loading, pair.y.loading, pair=pair)


def bases_of_rows(X: Tensor, Y: Tensor) -> Bases:
    """Bases from triangular factors of the centered rows [n, p] and [n, q], which do not square the condition number."""
    n = X.shape[0]
    coordinates = _triangular_factor(X, Y)
    first, second = (_basis(part, n) for part in coordinates)
    return Bases(n, X.shape[1], Y.shape[1], first.T @ second, first.T @ coordinates[0], second.T @ coordinates[1])


def check_ranks(bases: Bases, name: str) -> None:
    """Refuses ranks at which every canonical correlation is 1; warns where rows are few.

    Raises:
        DegenerateInputError: a rank of n − 1 or more, or of 0.
    """
    n, p, q, (rank_x, rank_y) = bases.n, bases.p, bases.q, bases.overlap.shape
    shape = f"X [{n:g}, {p}] of rank {rank_x}, Y [{n:g}, {q}] of rank {rank_y}"
    if max(rank_x, rank_y) >= n - 1:
        raise DegenerateInputError(
            f"{shape}: with a rank of n - 1 or more every canonical correlation is 1, whatever the data; use more stimuli or fewer units"
        )
    if min(rank_x, rank_y) == 0:
        raise DegenerateInputError(f"{shape}: all rows of one input are equal")
    if n < 5 * (p + q):
        warnings.warn(
            f"{name}: {n:g} rows for {p} + {q} units are fewer than 5 (p + q) = {5 * (p + q)}; chance alone gives a high value here, "
            "so read it with its null",
            InscapeWarning,
            stacklevel=6,
        )


def ill_conditioned(pair: CrossMoments) -> bool:
    """Whether a scatter is so ill-conditioned, or so near to losing rank, that the rows should be factored instead."""
    for moments in (pair.x, pair.y):
        full = min(int(moments.n) - 1, moments.d)
        kept = _above_cut(moments)
        if full > 0 and (len(kept) < full or float(kept[0] / kept[-1]) > CONDITION):
            return True
    return False


def by_rows(value: Callable[[Bases], float]) -> RowRoute:
    """The second route of a measure that is `value` of the bases."""
    return RowRoute(ill_conditioned, lambda X, Y: value(bases_of_rows(X, Y)))


def _above_cut(moments: Moments) -> Tensor:
    """The eigenvalues that are not lost in the rounding of the largest."""
    values = moments.eigenvalues
    return values[values > max(moments.n, len(values)) * _EPS * values[0]]


def _triangular_factor(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of centered X and Y in one orthonormal basis; block by block, so no n × n appears.

    Returns:
        [m, p] and [m, q] with m at most p + q.
    """
    p = X.shape[1]
    centers = [rows.mean(0, dtype=torch.float64) for rows in (X, Y)]
    factor = torch.zeros(0, p + Y.shape[1], dtype=torch.float64)
    for block in row_blocks(X.shape[0], p + Y.shape[1]):
        pieces = [rows[block].double() - center for rows, center in zip((X, Y), centers, strict=True)]
        factor = linalg.qr(torch.cat([factor, torch.cat(pieces, 1)]), mode="r").R
    return factor[:, :p], factor[:, p:]


def _basis(coordinates: Tensor, n: int) -> Tensor:
    """An orthonormal basis of the columns' span, in order of ascending variance."""
    left, values, _ = singular_vectors(coordinates)
    rank = int((values > max(n, coordinates.shape[1]) * _EPS * values[0]).sum())
    return left[:, :rank].flip(1)

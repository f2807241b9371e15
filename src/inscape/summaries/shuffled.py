"""Cross moments of sites whose pairing of rows is broken: only what crosses them is new."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from inscape.summaries.cross import CrossMoments
from inscape.summaries.moments import Moments


class CenteredRows:
    """Centered rows of one site in fp64, with the site's moments and, once a measure needs it, the rows' orthonormal basis.

    Args:
        rows: centered rows [n, d], in their own order or another.
        moments: of these rows; their order is nothing to them.
    """

    def __init__(self, rows: Tensor, moments: Moments) -> None:
        self.rows = rows
        self.moments = moments

    @cached_property
    def basis(self) -> Tensor:
        """An orthonormal basis of the rows' span, [n, rank], in order of ascending variance; n d²."""
        return self.rows @ self.moments.whitener

    def shuffled(self, order: Tensor) -> ShuffledRows:
        """The rows in another order."""
        return ShuffledRows(self, order)


class ShuffledRows:
    """The rows of one site and of its basis in another order, fetched when they are asked for and then kept."""

    def __init__(self, site: CenteredRows, order: Tensor) -> None:
        self.moments = site.moments
        self._site = site
        self._order = order

    @cached_property
    def rows(self) -> Tensor:
        """[n, d]."""
        return self._site.rows[self._order]

    @cached_property
    def basis(self) -> Tensor:
        """[n, rank]."""
        return self._site.basis[self._order]


class ShuffledCross(CrossMoments):
    """Cross moments of one site and of another in a different row order; it has no `products` and cannot be merged.

    Cost: n p q for `cross` when it is asked for, and for `overlap`, unless the product is known by then and saves the work.
    """

    def __init__(self, x: CenteredRows, y: ShuffledRows) -> None:
        super().__init__()
        self.x, self.y = x.moments, y.moments
        self._left, self._right = x, y

    @cached_property
    def cross(self) -> Tensor:
        """Centered cross scatter [p, q] of the broken pairing."""
        return self._left.rows.T @ self._right.rows

    @cached_property
    def overlap(self) -> Tensor:
        """QxᵀQy of the orthonormal bases, [rank x, rank y]."""
        p, q = self.x.d, self.y.d
        if "cross" in vars(self) and p + q < self.x.n:
            return self.x.whitener.T @ self.cross @ self.y.whitener
        return self._left.basis.T @ self._right.basis

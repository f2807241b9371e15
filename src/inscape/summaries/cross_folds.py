"""Paired rows by fold: what cross-validated regression of one site on another needs, without the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from inscape.arrays import as_rows, row_blocks
from inscape.errors import DegenerateInputError, StoreMismatchError, TooFewStimuliError
from inscape.summaries.base import Summary
from inscape.summaries.blocks import gram, needs_double, pilot_shift, shifted
from inscape.summaries.folds import FoldMoments
from inscape.summaries.rows import in_span


@dataclass(frozen=True)
class FoldSums:
    """Sums over the rows of one fold about the shifts: Σ(y−s) [q], Σ‖y−s‖², Σ(x−r)(y−s)ᵀ [p, q], in fp64."""

    n: float
    first: Tensor
    square: float
    cross: Tensor

    def minus(self, other: FoldSums) -> FoldSums:
        """The sums of the rows that are not in `other`."""
        return FoldSums(self.n - other.n, self.first - other.first, self.square - other.square, self.cross - other.cross)


class FoldRows:
    """Rows of one site about a shift, fold by fold: ready to be multiplied with those of any other site.

    Args:
        rows: [n, d].
        assigned: the fold of each row, [n].
        shift: the point [d] that is subtracted; the mean of the first rows by default.
        double: form products in fp64; by default a pilot's spectrum decides.
    """

    def __init__(self, rows: Tensor, assigned: np.ndarray, *, shift: Tensor | None = None, double: bool | None = None) -> None:
        self.shift = pilot_shift(rows) if shift is None else shift
        self.double = needs_double(rows) if double is None else double
        self._rows = rows
        self._where = {int(name): torch.from_numpy(np.flatnonzero(assigned == name)) for name in np.unique(assigned)}
        self._parts: dict[tuple[int, torch.dtype], Tensor] = {}

    def part(self, fold: int, dtype: torch.dtype) -> Tensor:
        """The shifted rows of one fold; kept."""
        if (fold, dtype) not in self._parts:
            self._parts[fold, dtype] = shifted(self._rows[self._where[fold]], self.shift, dtype)
        return self._parts[fold, dtype]


class CrossFolds(Summary):
    """Moments of x by fold, with the cross moments to y: everything that ridge regression of y on x needs, held out fold by fold.

    Folds are cut by source, so that dependent rows are never on both sides. Where units outnumber rows, either side is rotated into the
    span of its own rows first, which changes no rotation-invariant number.

    Cost of a pass: n p (p + q) multiplications; 8 p (p + q) bytes a fold.

    Example:
        >>> pair = CrossFolds.of(X, Y, folds=5)         # [n, p], [n, q]
        >>> pair.errors([0.1, 1.0])                     # doctest: +SKIP
    """

    additive: ClassVar[bool] = False
    arity: ClassVar[int] = 2
    grouped: ClassVar[bool] = True  # `of` takes the source of each row

    def __init__(self, x: FoldMoments, shift: Tensor, parts: dict[int, FoldSums], dtype: torch.dtype = torch.float64) -> None:
        self.x = x
        self.shift = shift
        self.parts = parts
        self.dtype = dtype  # of products of matrices: that of the products of rows, which a pilot's spectrum has decided

    @classmethod
    def of(
        cls,
        X: Any,
        Y: Any,
        *,
        folds: int = 5,
        seed: int = 0,
        sources: Any = None,
        x: FoldMoments | None = None,
        assigned: np.ndarray | None = None,
    ) -> CrossFolds:
        """The moments by fold of rows X [n, p] and Y [n, q], paired in order.

        Args:
            X: array, tensor or view, [n, p].
            Y: array, tensor or view, [n, q].
            folds: how many; sources are dealt out at random.
            seed: of the deal.
            sources: rows of one source stay in one fold, [n]; default every row is its own.
            x: ready moments of exactly these rows X by the same folds, to share between pairs.
            assigned: the fold of each row, [n], in place of a deal; the rows are then taken as they are, however wide.

        Raises:
            StoreMismatchError: X and Y have different numbers of rows.
            TooFewStimuliError: fewer than two sources a fold.
            DegenerateInputError: the rows are not [n, d] or hold NaN or infinity.
        """
        rows_x, rows_y = as_rows(X, "X"), as_rows(Y, "Y")
        if rows_x.shape[0] != rows_y.shape[0]:
            raise StoreMismatchError(
                f"X has {rows_x.shape[0]} rows (shape {tuple(rows_x.shape)}), Y has {rows_y.shape[0]} (shape {tuple(rows_y.shape)}); "
                "row i of both must be the same stimulus"
            )
        if assigned is None:
            assigned = deal(np.arange(len(rows_x)) if sources is None else sources, folds, seed=seed)
            rows_x, rows_y = in_span(rows_x), in_span(rows_y)
        if x is None:
            x = FoldMoments.of(rows_x, assigned)
        return cls.joined(x, FoldRows(rows_x, assigned, shift=x.shift), FoldRows(rows_y, assigned))

    @classmethod
    def joined(cls, x: FoldMoments, X: FoldRows, Y: FoldRows) -> CrossFolds:
        """The same from rows that are cut and shifted already, those of X about the shift of their moments `x`."""
        dtype = torch.float64 if X.double or Y.double else torch.float32
        return cls(x, Y.shift, {int(name): _sums(X.part(name, dtype), Y.part(name, dtype)) for name in x.folds}, dtype)

    @property
    def n(self) -> float:
        """Number of rows."""
        return self.x.n

    def minus(self, part: CrossFolds, *, x: FoldMoments | None = None) -> CrossFolds:
        """The moments of the rows outside `part`, which has some of the same rows in the same folds about the same shifts."""
        left = self.x.minus(part.x) if x is None else x
        parts = {name: sums.minus(part.parts[name]) if name in part.parts else sums for name, sums in self.parts.items()}
        return CrossFolds(left, self.shift, {name: sums for name, sums in parts.items() if sums.n > 0}, self.dtype)

    def errors(self, alphas: Sequence[float]) -> tuple[Float[Tensor, "folds alphas"], Float[Tensor, " folds"]]:
        r"""Held-out squared errors of ridge regression for every fold and penalty, and the squares around the training mean.

        The penalty is α times the mean positive eigenvalue of the training scatter; with α = 0 directions that are rounding are left
        out. Cost: three products p² q a fold.

        Raises:
            TooFewStimuliError: only one fold is left.
        """
        if len(self.parts) < 2:
            raise TooFewStimuliError(f"{len(self.parts)} fold has rows; held-out errors need at least 2")
        errors, squares = [], []
        total = _total(list(self.parts.values()))
        for name, held in self.parts.items():
            train = total.minus(held)
            basis = self.x.basis(name)
            center = train.first / train.n
            # Cross scatters about the training means, of the training rows and of the held-out ones, in the training basis.
            vectors = basis.vectors.T.to(self.dtype)
            fitted = vectors @ torch.addr(train.cross, basis.mean, center, alpha=-train.n).to(self.dtype)
            moved = torch.addr(held.cross, basis.mean, held.first, alpha=-1)
            target = vectors @ moved.addr_(basis.held_first - held.n * basis.mean, center, alpha=-1).to(self.dtype)
            around = held.square - 2 * float(center @ held.first) + held.n * float(center @ center)
            overlap, products = target.mul_(fitted).sum(1, dtype=torch.float64), gram(fitted.T).double().mul_(basis.held)
            weights = torch.stack([1 / (basis.values + alpha * basis.scale) if alpha > 0 else basis.inverse for alpha in alphas])
            errors.append(around - 2 * weights @ overlap + ((weights @ products) * weights).sum(1))
            squares.append(around)
        return torch.stack(errors), torch.tensor(squares, dtype=torch.float64)


def deal(sources: Any, folds: int, *, seed: int = 0) -> np.ndarray:
    """The fold of every row: sources shuffled and dealt out in turn, all rows of a source to one fold.

    Raises:
        TooFewStimuliError: fewer than two folds, or fewer than two sources a fold.
    """
    _, source = np.unique(np.asarray(sources), return_inverse=True)
    count = int(source.max()) + 1 if source.size else 0
    if folds < 2 or count < 2 * folds:
        raise TooFewStimuliError(f"{folds} folds of {count} independent rows; at least 2 folds and 2 rows a fold are needed")
    fold = np.empty(count, np.int64)
    fold[np.random.default_rng(seed).permutation(count)] = np.arange(count) % folds
    return fold[source]


def _sums(Z: Tensor, T: Tensor) -> FoldSums:
    cross: Tensor | None = None
    first, square = torch.zeros(T.shape[1], dtype=torch.float64), 0.0
    for block in row_blocks(len(Z), max(Z.shape[1], T.shape[1]), T.element_size()):
        product = (Z[block].T @ T[block]).to(first)
        cross = product if cross is None else cross.add_(product)
        first += T[block].sum(0, dtype=torch.float64).to(first.device)
        square += float(T[block].square().sum(dtype=torch.float64))
    assert cross is not None
    return FoldSums(len(Z), first, square, cross)


def _total(parts: list[FoldSums]) -> FoldSums:
    n = sum(part.n for part in parts)
    if n <= 0:
        raise DegenerateInputError("there are no rows in any fold")
    first, cross = parts[0].first.clone(), parts[0].cross.clone()
    for part in parts[1:]:
        first += part.first
        cross += part.cross
    return FoldSums(n, first, sum(part.square for part in parts), cross)

"""Rows for training: normalized batches of several sites in one shuffled order that can be taken up again anywhere."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import check_finite
from inscape.errors import DegenerateInputError, StoreMismatchError
from inscape.store import View
from inscape.summaries import Moments

# Rows that are shuffled together, over all sites; where more are given, pools of random pieces are shuffled one after the other.
POOL_BYTES = 512 * 2**20
_PIECE = 2048


@dataclass(frozen=True)
class Frame:
    """How rows of a site are normalized: x' = (x − mean) · inward, x = x' · outward + mean.

    Attributes:
        mean: [d].
        scale: inward is 1 / scale where there is no matrix: the root mean square over rows and units.
        inward: [d, d], a symmetric whitener, or None.
        outward: its inverse, or None.
    """

    mean: Tensor
    scale: float
    inward: Tensor | None = None
    outward: Tensor | None = None

    def apply(self, x: Tensor) -> Tensor:
        """Normalized rows in fp32."""
        rows = (x - self.mean.to(x.dtype)).float()
        return rows.div_(self.scale) if self.inward is None else rows @ self.inward


def frame_of(view: View, whiten: bool = False) -> Frame:
    """The frame of a site, from its moments; one pass over the rows.

    Raises:
        DegenerateInputError: rows are not finite, or all rows are equal.
    """
    if whiten:
        moments = Moments()
        for rows in view.batches():
            check_finite(rows, f"{view.system}/{view.site}")
            moments.update(rows)
        values, vectors = torch.linalg.eigh(moments.covariance())
        if float(values[-1]) <= 0:
            raise DegenerateInputError(f"all {view.n} rows of {view.system}/{view.site} are equal; there is nothing to decompose")
        values = values.clamp(min=float(values[-1]) * 1e-6)
        inward, outward = (vectors * values.rsqrt()) @ vectors.T, (vectors * values.sqrt()) @ vectors.T
        return Frame(moments.mean, 1.0, inward.float(), outward.float())
    # Only the mean and the total square are needed: n d, where moments would take n d².
    first, square, shift = torch.zeros(view.d, dtype=torch.float64), 0.0, None
    for rows in view.batches():
        check_finite(rows, f"{view.system}/{view.site}")
        rows = rows.double()
        shift = rows.mean(0) if shift is None else shift
        rows = rows - shift
        first += rows.sum(0)
        square += float(rows.square().sum())
    if shift is None:
        raise DegenerateInputError(f"{view.system}/{view.site} has no rows")
    drift = first / view.n
    variance = square / view.n - float(drift @ drift)
    if variance <= 1e-24 * max(square / view.n, float(shift.square().sum())):
        raise DegenerateInputError(f"all {view.n} rows of {view.system}/{view.site} are equal; there is nothing to decompose")
    return Frame(shift + drift, float(np.sqrt(variance / view.d)))


def entries_of(view: View) -> list[float]:
    """A few entries of a few rows, by which rows of another run are told from these; rounding aside."""
    rows = view.gather(np.unique(np.linspace(0, view.n - 1, 8).round().astype(int))) if view.n else torch.zeros(0, view.d)
    units = np.unique(np.linspace(0, view.d - 1, 4).round().astype(int))
    return [float(value) for value in rows[:, torch.from_numpy(units)].double().flatten()]


def check_paired(views: Sequence[View]) -> None:
    """Raises `StoreMismatchError` where sites have different numbers of rows, or rows of other stimuli."""
    first = views[0]
    for other in views[1:]:
        if other.n != first.n:
            raise StoreMismatchError(
                f"{first.system}/{first.site} has {first.n} rows, {other.system}/{other.site} has {other.n}; "
                "row i of both must be the same token"
            )
        if other.store is not first.store and not (np.array_equal(other.ids, first.ids) and np.array_equal(other.position, first.position)):
            raise StoreMismatchError(
                f"the rows of {first.system}/{first.site} and {other.system}/{other.site} belong to different stimuli or positions; "
                "capture both from the same table"
            )


def batches(
    views: Sequence[View], frames: Sequence[Frame], batch: int, *, steps: int, start: int = 0, seed: int = 0
) -> Generator[list[Tensor]]:
    """Batches `start` to `steps` of an endless shuffled reading; one normalized tensor [batch, d] for each site.

    The order is a function of the seed, the number of rows and, beyond `POOL_BYTES`, the units of all sites together; batch 1000 is the
    same whether or not the first 999 were read.
    """
    if start >= steps:
        return
    skip, left = start * batch, (steps - start) * batch
    held: list[list[Tensor]] = [[] for _ in views]
    waiting = 0
    for numbers in _pools(views, seed):
        if skip >= len(numbers):
            skip -= len(numbers)
            continue
        numbers, skip = numbers[skip:], 0
        rows = [frame.apply(_gather(view, numbers)) for view, frame in zip(views, frames, strict=True)]
        for own, fresh in zip(held, rows, strict=True):
            own.append(fresh)
        waiting += len(numbers)
        while waiting >= batch and left > 0:
            joined = [own[0] if len(own) == 1 else torch.cat(own) for own in held]
            whole = waiting - waiting % batch
            for at in range(0, whole, batch):
                if left > 0:
                    yield [one[at : at + batch] for one in joined]
                    left -= batch
            held = [[one[whole:]] for one in joined]
            waiting -= whole
        if left <= 0:
            return


def _gather(view: View, numbers: np.ndarray) -> Tensor:
    """Rows in the given order; read in ascending order, which is kinder to files."""
    order = np.argsort(numbers, kind="stable")
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return view.gather(numbers[order])[torch.from_numpy(back)]


def _pools(views: Sequence[View], seed: int) -> Generator[np.ndarray]:
    """Row numbers of one pool after the other, without end: every row once, then every row once more in another order."""
    n = views[0].n
    a_row = sum(view.d * 4 for view in views)
    pieces = max(1, POOL_BYTES // (a_row * _PIECE))
    count = -(-n // _PIECE)
    epoch = 0
    while True:
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(count)
        for at in range(0, count, pieces):
            numbers = np.concatenate([np.arange(i * _PIECE, min(n, (i + 1) * _PIECE)) for i in order[at : at + pieces]])
            yield rng.permutation(numbers)
        epoch += 1

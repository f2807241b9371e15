"""Whitening of channels by the covariance of their noise, without a matrix of channels by channels unless one was given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cholesky, solve_triangular

from inscape.errors import DegenerateInputError

KINDS = ("residual", "measurement")


@dataclass(frozen=True)
class Whitening:
    """Rows [n, d] divided by a root of a noise covariance; either a triangular root or a few directions of larger noise.

    Attributes:
        root: lower triangular L [d, d] with L Lᵀ the covariance, or None.
        scale: what each channel is divided by first [d].
        directions: orthonormal directions [d, r] in which noise differs from the rest, after scaling.
        gains: factors along them [r]; everything else is multiplied by `rest`.
        rest: factor of all other directions.
    """

    root: np.ndarray | None = None
    scale: np.ndarray | None = None
    directions: np.ndarray | None = None
    gains: np.ndarray | None = None
    rest: float = 1.0

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        if self.root is not None:
            return solve_triangular(self.root, rows.T, lower=True).T
        scaled = rows / self.scale
        assert self.directions is not None and self.gains is not None
        return self.rest * scaled + ((scaled @ self.directions) * (self.gains - self.rest)) @ self.directions.T


def of_covariance(covariance: Any, d: int, what: str = "noise") -> np.ndarray:
    """The lower Cholesky root of a covariance [d, d].

    Raises:
        DegenerateInputError: another shape, or a matrix that is no covariance of full rank.
    """
    matrix = np.asarray(covariance, dtype=np.float64)
    if matrix.shape != (d, d):
        raise DegenerateInputError(f"{what} has shape {matrix.shape}; expected a covariance [{d}, {d}] of the channels")
    try:
        if np.abs(matrix - matrix.T).max() > 1e-8 * np.abs(matrix).max():
            raise DegenerateInputError(f"{what} is not symmetric; expected the covariance of the channels' noise")
        return cholesky(matrix, lower=True)
    except (LinAlgError, ValueError) as error:
        raise DegenerateInputError(f"{what} is no covariance of full rank ({error}); shrink it, or give noise='residual'") from error


def of_residuals(residuals: np.ndarray, dof: int) -> Whitening:
    """The whitening by the covariance of residuals [r, d], shrunk toward its diagonal.

    Source: Schäfer & Strimmer 2005, A shrinkage approach to large-scale covariance matrix estimation, target D.

    Cost: r d min(r, d); holds as much as the residuals.

    Raises:
        DegenerateInputError: too few residuals, or a channel without noise.
    """
    r, d = residuals.shape
    if dof < 2:
        raise DegenerateInputError(f"{r} residual rows leave {dof} degrees of freedom; estimating noise needs repeats of the conditions")
    variance = (residuals**2).sum(0) / dof
    if not (variance > 1e-12 * variance.max()).all():
        raise DegenerateInputError(f"{int((variance <= 1e-12 * variance.max()).sum())} channels have no noise; leave them out")
    scale = np.sqrt(variance)
    z = residuals / scale
    gram = z @ z.T if r < d else z.T @ z
    shrinkage = _shrinkage(z, gram, dof)
    values, vectors = np.linalg.eigh(gram / dof)
    kept = values > 1e-12 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    directions = z.T @ vectors / np.sqrt(values * dof) if r < d else vectors
    if shrinkage <= 1e-10 and len(values) < d:
        raise DegenerateInputError(f"{r} residual rows of {d} channels give a noise covariance of rank {len(values)}; use more rows")
    gains = 1 / np.sqrt((1 - shrinkage) * values + shrinkage)
    return Whitening(scale=scale, directions=directions, gains=gains, rest=1 / np.sqrt(shrinkage) if shrinkage > 1e-10 else 0.0)


def _shrinkage(z: np.ndarray, gram: np.ndarray, dof: int) -> float:
    """How far correlations are pulled to 0: their summed sampling variance over their summed square, from 0 to 1."""
    r, d = z.shape
    squares = z**2
    correlations = (gram**2).sum() / (r - 1) ** 2 - d * (dof / (r - 1)) ** 2
    products = (squares.sum(1) ** 2).sum() / (r - 1) - (squares**2).sum() / (r - 1)
    if correlations <= 0:
        return 1.0
    return float(np.clip(r / dof**2 * (products - correlations) / correlations, 0, 1))


def residual_rows(rows: np.ndarray, condition: np.ndarray, fold: np.ndarray | None, kind: str) -> tuple[np.ndarray, int]:
    """What of each row is neither its condition nor (for "residual") its fold, and the degrees of freedom that are left.

    "measurement" takes the mean of the condition away; "residual" the mean of the condition in the fold where rows are repeated within
    folds, else the effects of condition and fold together.
    """
    if kind == "measurement" or fold is None:
        return rows - _means(rows, condition)[condition], len(rows) - int(condition.max()) - 1
    cells = np.unique(np.stack([condition, fold]), axis=1, return_inverse=True)[1].reshape(-1)
    count = int(cells.max()) + 1
    if count < len(rows):
        return rows - _means(rows, cells)[cells], len(rows) - count
    conditions, folds = int(condition.max()) + 1, int(fold.max()) + 1
    effects = np.zeros((len(rows), conditions + folds - 1))
    effects[np.arange(len(rows)), condition] = 1
    later = fold > 0
    effects[np.flatnonzero(later), conditions + fold[later] - 1] = 1
    fitted, _, rank, _ = np.linalg.lstsq(effects, rows, rcond=None)
    return rows - effects @ fitted, len(rows) - int(rank)


def _means(rows: np.ndarray, group: np.ndarray) -> np.ndarray:
    sums = np.zeros((int(group.max()) + 1, rows.shape[1]))
    np.add.at(sums, group, rows)
    return sums / np.bincount(group)[:, None]


def covariances(noise: Any, folds: int, d: int) -> list[np.ndarray]:
    """One noise covariance for each fold.

    Raises:
        DegenerateInputError: another number of matrices, or one that is no covariance.
    """
    given = [np.asarray(one, dtype=np.float64) for one in noise]
    if len(given) != folds:
        raise DegenerateInputError(f"noise lists {len(given)} covariances for {folds} folds; give one for each, in the order of the folds")
    for index, one in enumerate(given):
        of_covariance(one, d, f"noise[{index}]")
    return given


def product_under(first: np.ndarray, second: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """A Σ⁻¹ Bᵀ for rows A and B [c, d]."""
    from scipy.linalg import cho_solve

    return first @ cho_solve(cho_factor(covariance, lower=True), second.T)

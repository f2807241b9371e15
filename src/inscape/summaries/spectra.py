"""Eigenvalues, whiteners and nuclear norms of the small matrices that summaries hold."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
from jaxtyping import Float
from torch import Tensor, finfo, from_numpy, linalg

from inscape.arrays import threads
from inscape.errors import DegenerateInputError
from inscape.summaries.blocks import gram

# Below this size one thread solves faster than several.
SMALL = 1024
# Of the largest singular value: below it the square has lost half of its digits.
LEAST = 1e-4


def descending(matrix: Float[Tensor, "a a"], length: int) -> Float[Tensor, " length"]:
    """Eigenvalues of a positive semidefinite matrix, descending, cut or padded with zeros to `length`; a³.

    Values within the solver's own rounding (8 × 2.2e-16 of the largest) are 0: they say nothing about the matrix.
    """
    if matrix.device.type == "cpu" and matrix.shape[0] <= SMALL and bool(matrix.isfinite().all()):
        values = from_numpy(np.linalg.eigvalsh(matrix.numpy()))  # two thirds of the time of torch's
    else:
        with solver_threads(matrix.shape[0]):
            values = linalg.eigvalsh(matrix)
    return without_rounding(values, length)


def without_rounding(ascending: Float[Tensor, " a"], length: int) -> Float[Tensor, " length"]:
    """Eigenvalues as a solver gives them, turned to descend, those within its rounding 0, cut or padded with zeros to `length`."""
    values = ascending.flip(0)
    values = values * (values > 8 * finfo(values.dtype).eps * values[0])
    result = values.new_zeros(length)
    kept = min(length, values.shape[0])
    result[:kept] = values[:kept]
    return result


def inverse_square_root(matrix: Float[Tensor, "d d"], cut: float) -> Float[Tensor, "d d"]:
    """matrix^(−1/2) on the eigenvectors whose eigenvalue exceeds `cut` of the largest, 0 on the others; d³.

    Raises:
        DegenerateInputError: the matrix is 0, so there is no direction to scale.
    """
    values, vectors = eigenvectors(matrix)
    keep = values > cut * values[-1]
    if not bool(keep.any()) or float(values[-1]) <= 0:
        raise DegenerateInputError(f"the matrix of shape {tuple(matrix.shape)} has no positive eigenvalue, so nothing can be whitened")
    return (vectors[:, keep] / values[keep].sqrt()) @ vectors[:, keep].T


def nuclear_norm(matrix: Float[Tensor, "p q"]) -> float:
    """Sum of singular values, by a real decomposition: M Mᵀ loses half of the digits. Cost min(p, q)² max(p, q)."""
    return float(singular_values(matrix).sum())


def singular_values(matrix: Float[Tensor, "p q"]) -> Float[Tensor, " r"]:
    """Singular values, descending. Cost min(p, q)² max(p, q)."""
    with solver_threads(min(matrix.shape)):
        return linalg.svdvals(matrix)


def eigenvectors(matrix: Float[Tensor, "*batch a a"]) -> tuple[Float[Tensor, "*batch a"], Float[Tensor, "*batch a a"]]:
    """Eigenvalues of a symmetric matrix, ascending, and its eigenvectors as columns; a³."""
    with solver_threads(matrix.shape[-1]):
        values, vectors = linalg.eigh(matrix)
    return values, vectors


def singular_vectors(matrix: Float[Tensor, "*batch p q"], *, full: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """U, descending singular values and Vᵀ of a matrix; with `full` square U and V. Cost min(p, q)² max(p, q)."""
    with solver_threads(min(matrix.shape[-2:])):
        left, values, right = linalg.svd(matrix, full_matrices=full)
    return left, values, right


def left_singular_vectors(matrix: Float[Tensor, "p q"]) -> tuple[Float[Tensor, "p r"], Float[Tensor, " r"]]:
    """The first r = min(p, q) left singular vectors as columns, and the singular values, descending. Cost min(p, q)² max(p, q).

    From the eigenvectors of the smaller of M Mᵀ and Mᵀ M, which take half of the time of a decomposition of M, unless a singular value
    is below `LEAST` of the largest: its square would have lost the digits that tell its vector from its neighbors'.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    values, vectors = eigenvectors(gram(matrix.T if wide else matrix))
    if len(values) == 0 or float(values[0]) <= LEAST**2 * float(values[-1]):
        left, values, _ = singular_vectors(matrix)
        return left, values
    values, vectors = values.flip(0).sqrt(), vectors.flip(1)
    return (vectors if wide else matrix @ vectors / values), values


def solver_threads(size: int) -> AbstractContextManager[None]:
    """One thread for a solver of a matrix of this size where more would spend their time waiting for each other."""
    return threads(1) if size <= SMALL else nullcontext()

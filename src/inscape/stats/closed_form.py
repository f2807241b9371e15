"""The permutation distribution of an inner product of two kernels, by its first three moments, without a permutation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import pearson3
from torch import Tensor

from inscape.errors import TooFewStimuliError

# Rows of a tile of the kernel: half of its entries are never formed, and it stays in the caches.
TILE = 256


@dataclass(frozen=True)
class KernelInvariants:
    """What of a symmetric matrix K with zero row sums decides the permutation moments of its inner products.

    Attributes:
        n: number of rows.
        trace: Σ K_ii.
        square: ‖K‖².
        cube: tr K³.
        diagonal_square: Σ K_ii².
        diagonal_cube: Σ K_ii³.
        entries_cube: Σ K_ij³ over all entries.
        diagonal_of_square: Σ K_ii (K²)_ii.
        diagonal_form: Σ K_ii K_ij K_jj.
    """

    n: int
    trace: float
    square: float
    cube: float
    diagonal_square: float
    diagonal_cube: float
    entries_cube: float
    diagonal_of_square: float
    diagonal_form: float

    @classmethod
    def of_kernel(cls, K: Float[Tensor, "n n"]) -> KernelInvariants:
        """From a matrix with zero row sums. Cost n³."""
        diagonal, image = K.diagonal(), K @ K
        return cls(
            len(K),
            float(diagonal.sum()),
            float(K.square().sum()),
            float((image * K).sum()),
            float(diagonal.square().sum()),
            float(diagonal.pow(3).sum()),
            float(K.pow(3).sum()),
            float(diagonal @ image.diagonal()),
            float(diagonal @ K @ diagonal),
        )

    @classmethod
    def of_rows(cls, X: Float[Tensor, "n d"]) -> KernelInvariants:
        """Of the linear kernel X Xᵀ of centered rows, which is never held. Cost n d² / 2 + n² d / 2."""
        scatter, diagonal = _scatter(X), X.square().sum(1)
        of_square, entries = _tile_sums(X, X)
        moved = X.T @ diagonal
        return cls(
            len(X),
            float(diagonal.sum()),
            float(scatter.square().sum()),
            float((scatter @ scatter * scatter).sum()),
            float(diagonal.square().sum()),
            float(diagonal.pow(3).sum()),
            entries,
            float(diagonal @ of_square),
            float(moved @ moved),
        )

    @classmethod
    def of_hollow_rows(cls, X: Float[Tensor, "n d"]) -> KernelInvariants:
        """Of the linear kernel of centered rows without its diagonal, centered again: inner products of such kernels are Song's HSIC.

        Off the diagonal it is U = X Xᵀ + u 1ᵀ + 1 uᵀ, which is never held. Cost n d² / 2 + n² d / 2.
        """
        n, d = X.shape
        diagonal = X.square().sum(1)
        u = diagonal / (n - 2) - diagonal.sum() / (2 * (n - 1) * (n - 2))
        ones = torch.ones_like(u)
        left, right = torch.column_stack([X, u, ones]), torch.column_stack([X, ones, u])
        of_square, entries = _tile_sums(left, right, hollow=True)
        inner = right.new_zeros(d + 2, d + 2)  # rightᵀ left, whose third power has the trace of that of left rightᵀ
        inner[:d, :d] = _scatter(X)
        inner[:d, d:], inner[d:] = X.T @ left[:, d:], right[:, d:].T @ left
        removed = diagonal + 2 * u
        cube = float((inner @ inner * inner.T).sum() - 3 * removed @ of_square - removed.pow(3).sum())
        return cls(n, 0.0, float(of_square.sum()), cube, 0.0, 0.0, entries, 0.0, 0.0)


def _scatter(X: Tensor) -> Tensor:
    columns = X.numpy()  # whose BLAS does half of the work of a symmetric product
    return torch.from_numpy(columns.T @ columns)


def _tile_sums(left: Tensor, right: Tensor, *, hollow: bool = False) -> tuple[Tensor, float]:
    """Σ_j M_ij² for every i, and Σ M_ij³, of the symmetric M = left rightᵀ, with zeros on the diagonal if `hollow`."""
    entries, of_square = 0.0, left.new_zeros(len(left))
    for start in range(0, len(left), TILE):
        tile = left[start : start + TILE] @ right[start:].T
        size = tile.shape[0]  # columns right of the diagonal block stand for their mirror image too
        if hollow:
            tile.fill_diagonal_(0.0)
        squares = tile.square()
        entries += 2 * float(torch.dot(squares.flatten(), tile.flatten())) - float((squares[:, :size] * tile[:, :size]).sum())
        of_square[start : start + size] += squares.sum(1)
        of_square[start + size :] += squares[:, size:].sum(0)
    return of_square, entries


@dataclass(frozen=True)
class PermutationMoments:
    """Mean, standard deviation and skewness of Σ K_ij L_π(i)π(j) over all permutations π."""

    mean: float
    sd: float
    skewness: float

    def p(self, observed: float) -> float:
        """The chance of a value as large as `observed`, by the Pearson type III law with these moments."""
        if self.sd <= 0:
            return 1.0
        return float(pearson3.sf((observed - self.mean) / self.sd, self.skewness))

    def quantile(self, q: float) -> float:
        """The q-quantile of that law."""
        return self.mean + self.sd * float(pearson3.ppf(q, self.skewness)) if self.sd > 0 else self.mean


def permutation_moments(K: KernelInvariants, L: KernelInvariants) -> PermutationMoments:
    """The exact first three moments of the inner product of two kernels with zero row sums under all n! pairings of their rows.

    Args:
        K: invariants of one kernel.
        L: invariants of the other, of as many rows.

    Source: Kazi-Aoual, Hitier, Sabatier & Lebreton, "Refined approximations to permutation tests for multivariate inference",
        Computational Statistics & Data Analysis 1995.

    Raises:
        TooFewStimuliError: fewer than 6 rows, for which the third moment is not defined.

    Example:
        >>> import torch
        >>> X = torch.tensor([[1.0], [-1], [2], [-2], [3], [-3]], dtype=torch.float64)
        >>> one = KernelInvariants.of_rows(X)
        >>> round(permutation_moments(one, one).mean, 6)
        156.8
    """
    n = K.n
    if n < 6:
        raise TooFewStimuliError(f"the closed-form null needs at least 6 rows, got {n}; use null='permute'")
    mean = K.trace * L.trace / (n - 1)
    spread = [(n - 1) * one.square - one.trace**2 for one in (K, L)]
    peaked = [n * (n + 1) * one.diagonal_square - (n - 1) * (one.trace**2 + 2 * one.square) for one in (K, L)]
    variance = 2 * spread[0] * spread[1] / ((n - 1) ** 2 * (n + 1) * (n - 2))
    variance += peaked[0] * peaked[1] / ((n + 1) * n * (n - 1) * (n - 2) * (n - 3))
    if variance <= 1e-14 * mean**2:
        return PermutationMoments(mean, 0.0, 0.0)
    third = _third_moment(n, K, L) - 3 * mean * variance - mean**3
    return PermutationMoments(mean, math.sqrt(variance), third / variance**1.5)


def _third_moment(n: int, K: KernelInvariants, L: KernelInvariants) -> float:
    """E[⟨K, L_π⟩³]: every pair of cubic invariants of the two kernels with its coefficient, as the paper lists them."""

    def terms(one: KernelInvariants) -> tuple[float, ...]:
        t = one.trace
        return t**3, t * one.square, one.cube, t * one.diagonal_square, one.diagonal_cube, one.entries_cube

    (a1, a2, a3, a4, a5, a6), (b1, b2, b3, b4, b5, b6) = terms(K), terms(L)
    r, s = K.diagonal_of_square, L.diagonal_of_square
    f, g = K.diagonal_form, L.diagonal_form
    total = n**2 * (n + 1) * (n**2 + 15 * n - 4) * a5 * b5
    total += 4 * (n**4 - 8 * n**3 + 19 * n**2 - 4 * n - 16) * a6 * b6
    total += 24 * (n**2 - n - 4) * (a6 * g + f * b6)
    total += 6 * (n**4 - 8 * n**3 + 21 * n**2 - 6 * n - 24) * f * g
    total += 12 * (n**4 - n**3 - 8 * n**2 + 36 * n - 48) * r * s
    total += 12 * (n**3 - 2 * n**2 + 9 * n - 12) * (a4 * s + r * b4)
    total += 3 * (n**4 - 4 * n**3 - 2 * n**2 + 9 * n - 12) * a4 * b4
    total += 24 * ((n**3 - 3 * n**2 - 2 * n + 8) * (r * b6 + a6 * s) + (n**3 - 2 * n**2 - 3 * n + 12) * (r * g + f * s))
    total += 12 * (n**2 - n + 4) * (a4 * b6 + a6 * b4)
    total += 6 * (2 * n**3 - 7 * n**2 - 3 * n + 12) * (a4 * g + f * b4)
    total -= 2 * n * (n - 1) * (n**2 - n + 4) * ((2 * a6 + 3 * f) * b5 + (2 * b6 + 3 * g) * a5)
    total -= 3 * n * (n - 1) ** 2 * (n + 4) * ((a4 + 4 * r) * b5 + (b4 + 4 * s) * a5)
    total += 2 * n * (n - 1) * (n - 2) * ((a1 + 6 * a2 + 8 * a3) * b5 + (b1 + 6 * b2 + 8 * b3) * a5)
    total += a1 * ((n**3 - 9 * n**2 + 23 * n - 14) * b1 + 6 * (n - 4) * b2 + 8 * b3)
    total += 6 * a2 * ((n - 4) * b1 + (n**3 - 9 * n**2 + 24 * n - 14) * b2 + 4 * (n - 3) * b3)
    total += 8 * a3 * (b1 + 3 * (n - 3) * b2 + (n**3 - 9 * n**2 + 26 * n - 22) * b3)
    total -= 16 * (a1 * b6 + a6 * b1) + 6 * (a2 * b6 + a6 * b2) * (2 * n**2 - 10 * n + 16)
    total -= 8 * (a3 * b6 + a6 * b3) * (3 * n**2 - 15 * n + 16)
    total -= (a1 * g + f * b1) * (6 * n**2 - 30 * n + 24)
    total -= 6 * (a2 * g + f * b2) * (4 * n**2 - 20 * n + 24)
    total -= 8 * (a3 * g + f * b3) * (3 * n**2 - 15 * n + 24)
    inner = 24 * (a1 * s + r * b1) + 6 * (a2 * s + r * b2) * (2 * n**2 - 10 * n + 24)
    inner += 8 * (a3 * s + r * b3) * (3 * n**2 - 15 * n + 24)
    inner += (3 * n**2 - 15 * n + 6) * (a1 * b4 + a4 * b1)
    inner += 6 * (a2 * b4 + a4 * b2) * (n**2 - 5 * n + 6) + 48 * (a3 * b4 + a4 * b3)
    total -= (n - 2) * inner
    return total / (n * (n - 1) * (n - 2) * (n - 3) * (n - 4) * (n - 5))

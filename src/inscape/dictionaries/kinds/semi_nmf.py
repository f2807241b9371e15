"""Activations as nonnegative sums of directions of either sign, streamed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import check_finite
from inscape.dictionaries.base import Tensors, check_positive, dictionary_kind, unit_rows
from inscape.dictionaries.closed import Closed
from inscape.dictionaries.codes import Codes, from_mask
from inscape.errors import DegenerateInputError, DictionaryError
from inscape.store import View

# Rows that are updated at one time.
_ROWS = 4096
_TINY = 1e-12


@dictionary_kind(
    "SemiNMF",
    example=lambda d: {"width": d // 2, "iterations": 30},
    source="Ding, Li and Jordan 2010, Convex and semi-nonnegative matrix factorizations; Shafran et al. 2025 for MLP activations",
)
@dataclass(frozen=True, repr=False)
class SemiNMF(Closed):
    """Rows ≈ G F with strengths G ≥ 0 [n, m] and directions F [m, d] of either sign: concepts of an MLP as groups of its neurons.

    Each iteration is one pass over the rows: F ← (GᵀG)⁻¹ GᵀX, then G ← G ⊙ √((XFᵀ₊ + G FFᵀ₋) / (XFᵀ₋ + G FFᵀ₊)). Only GᵀG and GᵀX are kept
    between passes, the error follows from traces, and G lies in a temporary file, so memory does not grow with the rows. With `winners`
    each direction keeps its largest entries only. Rows are taken as they are, without centering: W_dec = F with rows of length 1,
    b_dec = 0, and `encode` solves the nonnegative least squares.

    Fitted once more on its own directions, `ix.decompose(first.W_dec, ix.dictionaries.SemiNMF(width=…))`, it gives the next level of a
    hierarchy: `second.encode(first.W_dec)` says which fine concept belongs to which coarse one.

    Attributes:
        width: number of directions, m.
        iterations: passes at most.
        winners: share of a direction's entries that are kept, the largest ones; 1 keeps all.
        tolerance: relative fall of the error over ten passes at which it ends.

    Example:
        >>> ix.dictionaries.SemiNMF(width=100, winners=0.01)
        SemiNMF(width=100, winners=0.01)
    """

    iterations: int = 200
    winners: float = 1.0
    tolerance: float = 1e-4
    shifts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.kind, iterations=self.iterations, winners=self.winners)
        check_positive(self.kind, zero=True, tolerance=self.tolerance)

    def shapes(self, d: int, out: int) -> dict[str, tuple[int, ...]]:
        """Directions, and an offset of zero."""
        return {"W_dec": (self.width, out), "b_dec": (out,)}

    def encode(self, t: Tensors, x: Tensor) -> Codes:
        """Nonnegative least squares by coordinate descent, until nothing moves."""
        codes = nonnegative(x - t["b_dec"], t["W_dec"])
        return from_mask(codes, codes > 0)

    def fit(self, view: View, seed: int) -> tuple[Tensors, dict[str, Any]]:
        """Passes over the rows until the error falls no more."""
        if self.width > view.n:
            raise DictionaryError(f"SemiNMF: width={self.width} is more than the {view.n} rows of {view.system}/{view.site}")
        with tempfile.TemporaryDirectory() as folder:
            passes = Passes(view, self.width, seed, Path(folder) / "strengths")
            F = passes.run(self.iterations, self.tolerance, self._win)
        told = {"rows": view.n, "iterations": len(passes.errors), "converged": passes.converged}
        return {"W_dec": unit_rows(F).float(), "b_dec": torch.zeros(view.d)}, told

    def _win(self, F: Tensor) -> Tensor:
        """Each direction's largest entries."""
        if self.winners >= 1:
            return F
        kept = F.abs().topk(max(1, round(self.winners * F.shape[1])), dim=1).indices
        return torch.zeros_like(F).scatter_(1, kept, F.gather(1, kept))


@dataclass
class Passes:
    """The passes of a fit: what is kept between them, and the strengths in a file.

    Attributes:
        view: the rows.
        width: number of directions.
        seed: seed of the clusters that the first strengths come from.
        path: the file of the strengths, [n, m] fp32.
        errors: ‖X − GF‖² after each pass.
        converged: whether the error had stopped falling.
    """

    view: View
    width: int
    seed: int
    path: Path
    errors: list[float] = field(default_factory=list[float])
    converged: bool = False

    def run(self, iterations: int, tolerance: float, win: Callable[[Tensor], Tensor]) -> Tensor:
        """The directions [m, d] of the pass with the smallest error.

        Raises:
            DegenerateInputError: rows are not finite, or all equal.
        """
        n, m = self.view.n, self.width
        strengths = np.lib.format.open_memmap(self.path, mode="w+", dtype=np.float32, shape=(n, m))
        gg, gx, square = self._begin(strengths)
        best, lowest = torch.zeros(m, self.view.d), np.inf
        for done in range(iterations):
            F = win(torch.linalg.solve(gg + 1e-6 * gg.diagonal().mean() * torch.eye(m, dtype=gg.dtype), gx)).float()
            gg, gx = self._pass(strengths, F)
            F64 = F.double()
            error = square - 2 * float((F64 * gx).sum()) + float((F64 @ F64.T * gg).sum())
            self.errors.append(error)
            if error < lowest:
                best, lowest = F, error
            if done >= 10 and self.errors[-11] - error < tolerance * square:
                self.converged = True
                break
        return best

    def _begin(self, strengths: np.ndarray) -> tuple[Tensor, Tensor, float]:
        """First strengths from clusters of the rows, 1 in its own and 0.2 more in all; GᵀG, GᵀX and ‖X‖²."""
        centers = self._centers()
        gg, gx = torch.zeros(self.width, self.width, dtype=torch.float64), torch.zeros(self.width, self.view.d, dtype=torch.float64)
        square, apart = 0.0, 0.0
        first = self.view.read(0, 1).float()
        for at in range(0, self.view.n, _ROWS):
            x = self.view.read(at, at + _ROWS).float()
            check_finite(x, f"{self.view.system}/{self.view.site}")
            g = torch.full((len(x), self.width), 0.2)
            g[torch.arange(len(x)), torch.cdist(x, centers).argmin(1)] += 1
            strengths[at : at + len(x)] = g.numpy()
            gg += (g.T @ g).double()
            gx += (g.T @ x).double()
            square += float(x.double().square().sum())
            apart = max(apart, float((x - first).abs().max()))
        if apart == 0:
            raise DegenerateInputError(
                f"all {self.view.n} rows of {self.view.system}/{self.view.site} are equal; there is nothing to decompose"
            )
        return gg, gx, square

    def _centers(self) -> Tensor:
        """Centers of k-means on a sample of rows, begun far from each other."""
        rng = np.random.default_rng(self.seed)
        chosen = np.sort(rng.choice(self.view.n, min(self.view.n, max(4096, 20 * self.width)), replace=False))
        x = self.view.gather(chosen).float()
        check_finite(x, f"{self.view.system}/{self.view.site}")
        centers = x[rng.integers(len(x))][None]
        apart = (x - centers).square().sum(1)
        for _ in range(1, self.width):
            weights = apart.double().numpy() + _TINY
            place = int(rng.choice(len(x), p=weights / weights.sum()))
            centers = torch.cat([centers, x[place][None]])
            apart = torch.minimum(apart, (x - x[place]).square().sum(1))
        for _ in range(10):
            own = torch.cdist(x, centers).argmin(1)
            counts = torch.bincount(own, minlength=len(centers))
            sums = torch.zeros_like(centers).index_add_(0, own, x)
            centers = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centers)
        return centers

    def _pass(self, strengths: np.ndarray, F: Tensor) -> tuple[Tensor, Tensor]:
        """Updates all strengths; GᵀG and GᵀX of the new ones."""
        gg, gx = torch.zeros(self.width, self.width, dtype=torch.float64), torch.zeros(self.width, self.view.d, dtype=torch.float64)
        products = F @ F.T
        up, down = products.clamp(min=0), (-products).clamp(min=0)
        for at in range(0, self.view.n, _ROWS):
            x = self.view.read(at, at + _ROWS).float()
            g = torch.from_numpy(np.array(strengths[at : at + len(x)]))
            fit = x @ F.T
            above = fit.clamp(min=0).addmm_(g, down)
            below = (-fit).clamp_(min=0).addmm_(g, up)
            g.mul_(above.div_(below.add_(_TINY)).sqrt_())
            strengths[at : at + len(x)] = g.numpy()
            gg += (g.T @ g).double()
            gx += (g.T @ x).double()
        return gg, gx


def nonnegative(x: Tensor, F: Tensor, sweeps: int = 500, tolerance: float = 1e-6) -> Tensor:
    """The smallest ‖x − g F‖² over g ≥ 0 for each row, [n, m], by cyclic coordinate descent on FFᵀ."""
    products, fit = F @ F.T, (x @ F.T).T.contiguous()
    g = torch.zeros_like(fit)
    left = fit.clone()  # (x − gF) Fᵀ, kept up to date
    scale = float(fit.abs().max()) or 1.0
    for _ in range(sweeps):
        moved = 0.0
        for i in range(len(F)):
            step = torch.maximum(left[i] / products[i, i].clamp(min=_TINY), -g[i])
            g[i] += step
            left.addr_(products[:, i], step, alpha=-1)
            moved = max(moved, float(step.abs().max()))
        if moved <= tolerance * scale:
            break
    return g.T.contiguous()

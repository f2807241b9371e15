"""Gaussian posteriors of a variational autoencoder: means and variances of its latent variables, row by row."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from inscape.arrays import as_rows, row_blocks
from inscape.errors import DegenerateInputError, StoreMismatchError
from inscape.summaries.base import Summary
from inscape.summaries.moments import Moments


class Posteriors(Summary):
    """Sums over rows [n, 2m]: m means, then the logarithms of m variances, of posteriors N(μ, σ²) with the prior N(0, 1).

    Attributes:
        n: number of rows.
        means: moments of the means μ.
        variance: Σ σ², [m].
        divergence: Σ KL(N(μ, σ²) ‖ N(0, 1)) in nats, [m].
        closed: rows in which the divergence is below the threshold, [m].

    Cost of a pass: n m², for the moments of the means.

    Example:
        >>> Posteriors.of(np.concatenate([mean, log_variance], 1)).divergence    # [n, 2m] -> [m]
    """

    additive: ClassVar[bool] = True

    def __init__(self, threshold: float = 0.01) -> None:
        self.threshold = threshold
        self.n: float = 0
        self.means = Moments()
        self.variance: Float[Tensor, " m"] = torch.zeros(0, dtype=torch.float64)
        self.divergence: Float[Tensor, " m"] = torch.zeros(0, dtype=torch.float64)
        self.closed: Float[Tensor, " m"] = torch.zeros(0, dtype=torch.float64)

    @classmethod
    def of(cls, X: Any, *, threshold: float = 0.01) -> Posteriors:
        """The posteriors of rows X [n, 2m].

        Args:
            X: array, tensor or view, [n, 2m]: m means, then m logarithms of variances.
            threshold: nats below which a posterior counts as the prior.

        Raises:
            DegenerateInputError: X is not [n, 2m], holds NaN or infinity, or its variances leave the range of fp64.
        """
        return cls(threshold).update(X)

    def update(self, X: Any) -> Posteriors:
        """Adds rows X [b, 2m], in place."""
        rows = as_rows(X, minimum=0)
        if rows.shape[1] % 2:
            raise DegenerateInputError(
                f"posteriors have shape {tuple(rows.shape)}; expected [n, 2m]: m means, then the logarithms of m variances"
            )
        m = rows.shape[1] // 2
        if not self.n:
            self.variance, self.divergence, self.closed = (torch.zeros(m, dtype=torch.float64) for _ in range(3))
        for block in row_blocks(*rows.shape):
            mean, log_variance = rows[block].double().cpu().split(m, 1)
            variance = log_variance.exp()
            # e^v − v − 1 by expm1, which keeps the digits of a variance near 1.
            divergence = (mean.square() + torch.expm1(log_variance) - log_variance) / 2
            if not bool(torch.isfinite(divergence.sum())):
                raise DegenerateInputError(
                    f"logarithms of variances reach {float(log_variance.max()):.3g}: their exponential overflows; the second "
                    f"half of the {2 * m} columns must be logarithms of variances"
                )
            self.n += len(mean)
            self.variance = self.variance + variance.sum(0)
            self.divergence = self.divergence + divergence.sum(0)
            self.closed = self.closed + (divergence < self.threshold).sum(0)
            self.means.update(mean)
        return self

    def merge(self, other: Posteriors) -> Posteriors:
        """The posteriors of both sets of rows."""
        return self._combined(other, 1)

    def minus(self, part: Posteriors) -> Posteriors:
        """The posteriors of the rows outside `part`, which was merged before."""
        return self._combined(part, -1)

    @property
    def d(self) -> int:
        """Number of latent variables."""
        return len(self.variance)

    def _combined(self, other: Posteriors, sign: int) -> Posteriors:
        if not other.n:
            return self
        if not self.n:
            return other
        if (self.d, self.threshold) != (other.d, other.threshold):
            raise StoreMismatchError(f"posteriors of {self.d} and of {other.d} variables cannot be combined; they must come from one site")
        result = Posteriors(self.threshold)
        result.n = self.n + sign * other.n
        result.means = self.means.merge(other.means) if sign > 0 else self.means.minus(other.means)
        for name in ("variance", "divergence", "closed"):
            setattr(result, name, (getattr(self, name) + sign * getattr(other, name)).clamp(min=0))
        return result

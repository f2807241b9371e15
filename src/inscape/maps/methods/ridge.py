"""Ridge regression, the penalty by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.maps.base import Fit, PairedRows, map_method
from inscape.summaries.cross_folds import CrossFolds

ALPHAS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


@map_method(exact=set(), source="Hoerl & Kennard 1970")
def ridge(pairs: PairedRows, *, alphas: Sequence[float] = ALPHAS, folds: int = 5, seed: int = 0) -> Fit:
    r"""Least squares with a penalty that cross-validation picks; for few rows or many units.

    $W = (S_x + \lambda I)^{-1} M$ with $\lambda = \alpha$ times the mean positive eigenvalue of $S_x$, α the one with the least error over
    folds in which no source is on both sides. The way back is fitted the same way from b to a, with an α of its own.

    Args:
        pairs: what it is fitted on.
        alphas: penalties to choose from, in units of the mean eigenvalue.
        folds: how many parts the rows are cut into to choose.
        seed: of the cut.

    Raises:
        DegenerateInputError: an α is not positive.
        TooFewStimuliError: fewer than two sources a fold.

    Source:
        Hoerl & Kennard, "Ridge regression", Technometrics 1970.
    """
    if not alphas or not all(alpha > 0 and math.isfinite(alpha) for alpha in alphas):
        raise DegenerateInputError(f"alphas={tuple(alphas)} must be positive numbers; the default is {ALPHAS}")
    weight, alpha = _fit(pairs, alphas, folds, seed)
    back, alpha_back = _fit(pairs.swapped(), alphas, folds, seed)
    return Fit(weight, back, told={"alpha": alpha, "alpha_back": alpha_back})


def _fit(pairs: PairedRows, alphas: Sequence[float], folds: int, seed: int) -> tuple[Tensor, float]:
    moments = pairs.moments
    if moments.x.trace <= 0 or moments.y.trace <= 0:
        return torch.zeros_like(moments.cross), max(alphas)
    X, Y = pairs.rows()
    errors, _ = CrossFolds.of(X, Y, folds=folds, seed=seed, sources=pairs.sources).errors(alphas)
    alpha = float(alphas[int(errors.sum(0).argmin())])
    if moments.x.dual:  # fewer rows than units: n² numbers instead of p²
        Xc, Yc = X.double() - moments.x.mean, Y.double() - moments.y.mean
        values, vectors = torch.linalg.eigh(Xc @ Xc.T)
        return Xc.T @ (vectors @ ((vectors.T @ Yc) / (values.clamp(min=0) + _penalty(values, alpha)).unsqueeze(1))), alpha
    values, vectors = moments.x.eigenbasis
    inside = (vectors.T @ moments.cross) / (values.clamp(min=0) + _penalty(values, alpha)).unsqueeze(1)
    return vectors @ inside, alpha


def _penalty(values: Tensor, alpha: float) -> float:
    positive = values[values > len(values) * torch.finfo(values.dtype).eps * values[-1]]
    return alpha * float(positive.mean())

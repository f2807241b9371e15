"""How many directions a spectrum has, and how fast it falls over all of its ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.measures.spectrum import fit_window, varying
from inscape.results import Curve
from inscape.summaries import Moments

_PLACES = 48  # ranks that a curve shows: the first ones all, then evenly on a logarithmic axis


def _threshold(n: float, d: int) -> dict[str, float]:
    return {"relative_eigenvalue_threshold": max(n, d) * torch.finfo(torch.float64).eps}


@measure(
    invariant={"translation", "linear", "row_order"},
    sensitive=(),
    range=(1, "min(n - 1, d)"),
    source="Golub & Van Loan 2013, section 5.4",
    higher="more dimensions",
    record=_threshold,
)
def numerical_rank(moments: Moments) -> float:
    r"""The number of directions in which the centered rows vary at all, up to rounding.

    The count of eigenvalues $\lambda_i$ of the covariance of the rows [n, d] above $\max(n, d) \cdot 2.2 \cdot 10^{-16} \cdot \lambda_1$;
    results keep the threshold. A direction counts however little it carries: see `effective_rank` for how many matter.

    Returns:
        Directions, from 1 to min(n - 1, d).

    Raises:
        DegenerateInputError: all rows are equal.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Golub & Van Loan, "Matrix computations", 4th edition, 2013, section 5.4: numerical rank, with the usual threshold on the
        eigenvalues of the scatter, that is its root on singular values.

    Cost:
        n d² for the scatter, shared with all spectral measures, and d³ for its eigenvalues.

    Bias:
        Rounding of narrow dtypes fills every direction: rows of rank 5 that were stored in fp16 have full rank.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 3)) @ np.ones((3, 8))
        >>> ix.measures.numerical_rank(X)
        1.0
    """
    varying(moments)
    return float(moments.rank)


def _fitted(n: float, d: int, *, first: int, last: int) -> dict[str, int]:
    start, stop = fit_window(n, d, first, last)
    return {"first_rank": start, "last_rank": stop}


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(-math.inf, math.inf),
    source="Stringer et al. 2019, eigenspectrum fit",
    higher="a spectrum that falls faster",
    undefined={"constant", "rank_one"},
    minimum=31,
    status="provisional",
    record=_fitted,
)
def spectrum_decay(moments: Moments, *, first: int = 11, last: int = 500) -> Curve:
    r"""The shares of variance by rank, and the exponent of the power law that their tail follows, every octave of ranks counted alike.

    The curve is $\lambda_i / \sum_j \lambda_j$ over the ranks $i$, with the eigenvalues $\lambda$ of the covariance of the rows [n, d].
    The number is the slope of the line through $(\log i, -\log \lambda_i)$ for the ranks from `first` to min(`last`, d, n - 1), fitted by
    least squares with weights $1 / i$. `alpha_req` weighs every rank alike and so follows the far tail.

    Args:
        moments: of the rows [n, d].
        first: the first rank of the fit, counted from 1.
        last: the last rank, where the input has as many.

    Returns:
        A curve over ranks (at most 48 of them, the first ones and then evenly on a logarithmic axis); its value is the exponent.

    Raises:
        TooFewStimuliError: the rows leave fewer than 20 ranks for the fit.
        DegenerateInputError: the units leave fewer than 20 ranks, or an eigenvalue inside the window is zero.

    Source:
        Stringer, Pachitariu, Steinmetz, Carandini & Harris, "High-dimensional geometry of population responses in visual cortex",
        Nature 2019: ranks 11 to 500, weights 1 / i as in the code published with it (its Python notebook starts at rank 12). The paper
        cross-validates the spectrum over repeats; this is the plain one.

    Cost:
        n d² for the scatter, shared with all spectral measures, and d³ for its eigenvalues.

    Bias:
        Too high for small n: the tail of the sample spectrum falls too fast. Keep n well above the last rank.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((4000, 60)) / np.arange(1, 61) ** 0.5
        >>> round(float(ix.measures.spectrum_decay(X)), 1)
        1.0
    """
    start, stop = fit_window(moments.n, moments.d, first, last)
    spectrum = moments.eigenvalues
    floor = float(spectrum[0]) * max(moments.n, moments.d) * torch.finfo(torch.float64).eps
    rank = int((spectrum > floor).sum())
    if rank < stop:
        raise DegenerateInputError(
            f"the spectrum ends at rank {rank}, inside the window of ranks {start} to {stop} "
            f"(input [{moments.n:g}, {moments.d}]); set `last` to at most {rank}, or use more varied stimuli"
        )
    ranks = torch.arange(start, stop + 1, dtype=torch.float64)
    exponent = -_weighted_slope(ranks.log(), spectrum[start - 1 : stop].log().cpu(), 1 / ranks)
    places = _places(rank)
    shares = (spectrum / spectrum.sum()).cpu()
    return Curve(exponent, axis="rank", at=places, values=[float(shares[place - 1]) for place in places])


def _weighted_slope(x: Tensor, y: Tensor, weights: Tensor) -> float:
    weights = weights / weights.sum()
    x = x - (weights * x).sum()
    return float((weights * x * y).sum() / (weights * x * x).sum())


def _places(rank: int) -> list[int]:
    steps = torch.logspace(0, math.log10(rank), _PLACES, dtype=torch.float64)
    return sorted({min(rank, round(float(step))) for step in steps})

"""How many directions a representation uses: closed forms of the spectrum of one `Moments` summary."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError, TooFewStimuliError
from inscape.measures.base import measure
from inscape.summaries import Moments

# Rows that differ by less than this share of their mean's length differ by the rounding of fp64 alone.
_ROUNDING = 1e-13


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(1, "min(n - 1, d)"),
    source="Roy & Vetterli 2007, definition 1",
    higher="more dimensions",
)
def effective_rank(moments: Moments) -> float:
    r"""The number of directions that the centered rows use, counted by the entropy of their singular values.

    $\exp\left(-\sum_i p_i \log p_i\right)$ with $p_i = s_i / \sum_j s_j$, where $s$ are the singular values of the centered rows
    [n, d].

    Returns:
        Directions, from 1 to min(n - 1, d).

    Raises:
        DegenerateInputError: all rows are equal.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Roy & Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007, definition 1.

    Cost:
        n d² for the scatter, shared with all spectral measures, and d³ for its eigenvalues.

    Bias:
        Too low for n below about 10 d, and it grows with n; compare values at equal n.

    Example:
        >>> import numpy as np, inscape as ix
        >>> corners = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        >>> round(ix.measures.effective_rank(corners), 6)
        2.0
    """
    varying(moments)
    return math.exp(_entropy(_above_rounding(moments.eigenvalues).sqrt()))


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(1, "min(n - 1, d)"),
    source="Roy & Vetterli 2007, definition 1, on variances",
    higher="more dimensions",
)
def effective_rank_covariance(moments: Moments) -> float:
    r"""The number of directions that carry variance, counted by the entropy of the covariance's eigenvalues.

    $\exp\left(-\sum_i p_i \log p_i\right)$ with $p_i = \lambda_i / \sum_j \lambda_j$, where $\lambda$ are the eigenvalues of the
    covariance of the rows [n, d]. Smaller than `effective_rank`, which weighs by standard deviation.

    Returns:
        Directions, from 1 to min(n - 1, d).

    Raises:
        DegenerateInputError: all rows are equal.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Roy & Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007, definition 1, applied to the
        eigenvalues of the covariance.

    Cost:
        n d² for the scatter, shared with all spectral measures, and d³ for its eigenvalues.

    Bias:
        Too low for small n.

    Example:
        >>> import numpy as np, inscape as ix
        >>> corners = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        >>> round(ix.measures.effective_rank_covariance(corners), 6)
        2.0
    """
    varying(moments)
    return math.exp(_entropy(_above_rounding(moments.eigenvalues)))


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(1 - 1e-6, math.inf),
    source="Garrido et al. 2023, eq. 1",
    higher="more dimensions",
    undefined=(),
    minimum=1,
)
def rankme(moments: Moments, *, eps: float = 1e-7) -> float:
    r"""The number of directions that the rows use, not centered, counted by the entropy of their singular values as RankMe does.

    $\exp\left(-\sum_i p_i \log p_i\right)$ with $p_i = s_i / \sum_j s_j + \epsilon$, where $s$ are the min(n, d) singular values of
    the rows [n, d] as they are. A large mean counts as a direction; `effective_rank` is the centered form without $\epsilon$.

    Args:
        moments: of the rows [n, d].
        eps: the constant of the paper; 0 gives the plain entropy. It adds about .03 directions at d = 256.

    Returns:
        Directions, from 1 to about min(n, d).

    Raises:
        DegenerateInputError: all rows are zero.

    Source:
        Garrido, Balestriero, Najman & LeCun, "RankMe: assessing the downstream performance of pretrained self-supervised
        representations by their rank", ICML 2023, eq. 1.

    Cost:
        n d² for the scatter, shared with all spectral measures, and d³ for the eigenvalues of XᵀX.

    Bias:
        Too low for n below about 10 d; the paper uses 25,600 rows.

    Example:
        >>> import numpy as np, inscape as ix
        >>> corners = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        >>> round(ix.measures.rankme(corners), 4)
        2.0
    """
    s = _above_rounding(moments.raw_eigenvalues).sqrt()[: min(int(moments.n), moments.d)]
    total = float(s.sum())
    if total <= 0:
        raise DegenerateInputError(f"all {moments.n:g} rows are zero (shape [{moments.n:g}, {moments.d}])")
    p = s / total + eps
    return math.exp(-float(torch.special.xlogy(p, p).sum()))


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(1, "min(n - 1, d)"),
    source="Gao et al. 2017, participation ratio",
    higher="more dimensions",
)
def participation_ratio(moments: Moments) -> float:
    r"""The number of directions that carry variance, counted by the second moment of the spectrum.

    $\left(\sum_i \lambda_i\right)^2 / \sum_i \lambda_i^2 = \mathrm{tr}(\Sigma)^2 / \lVert\Sigma\rVert_F^2$ for the covariance
    $\Sigma$ of the rows [n, d]; no eigenvalues are needed.

    Returns:
        Directions, from 1 to min(n - 1, d).

    Raises:
        DegenerateInputError: all rows are equal.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Gao, Trautmann, Yu, Santhanam, Ryu, Shenoy & Ganguli, "A theory of multineuronal dimensionality, dynamics and measurement",
        bioRxiv 214262, 2017: the participation ratio.

    Cost:
        n d² for the scatter, then d².

    Bias:
        Too low: noise in the sample covariance adds about tr(Σ)²/n to its squared norm.

    Example:
        >>> import numpy as np, inscape as ix
        >>> corners = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        >>> round(ix.measures.participation_ratio(corners), 6)
        2.0
    """
    varying(moments)
    return moments.trace**2 / moments.frobenius2


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(1, "min(n - 1, d)"),
    source="Rudelson & Vershynin 2007, remark 1.3",
    higher="more dimensions",
)
def stable_rank(moments: Moments) -> float:
    r"""The variance of the representation in units of its strongest direction.

    $\sum_i \lambda_i / \lambda_1 = \lVert X_c \rVert_F^2 / \lVert X_c \rVert_2^2$ for the centered rows $X_c$ [n, d].

    Returns:
        Directions, from 1 to min(n - 1, d).

    Raises:
        DegenerateInputError: all rows are equal.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Rudelson & Vershynin, "Sampling from large matrices: an approach through geometric functional analysis", JACM 2007, remark
        1.3 (numerical rank), for centered rows.

    Cost:
        n d² for the scatter, shared with all spectral measures, and d³ for its eigenvalues.

    Bias:
        Too low for small n, where the largest eigenvalue is overestimated.

    Example:
        >>> import numpy as np, inscape as ix
        >>> corners = np.array([[2.0, 0], [-2, 0], [0, 1], [0, -1]])
        >>> round(ix.measures.stable_rank(corners), 6)
        1.25
    """
    varying(moments)
    return moments.trace / float(moments.eigenvalues[0] * moments.n)


def _fitted_ranks(n: float, d: int, *, first: int, last: int) -> dict[str, int]:
    start, stop = fit_window(n, d, first, last)
    return {"first_rank": start, "last_rank": stop}


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(-math.inf, math.inf),
    source="Agrawal et al. 2022",
    higher="a spectrum that falls faster",
    undefined={"constant", "rank_one"},
    minimum=31,
    record=_fitted_ranks,
)
def alpha_req(moments: Moments, *, first: int = 11, last: int = 100) -> float:
    r"""The exponent of the power law by which the eigenvalues of the covariance fall with their rank.

    The slope $\alpha$ of the least-squares line through $(\log i, -\log \lambda_i)$ for the ranks $i$ from `first` to
    min(`last`, d, n - 1); rows [n, d]. The window decides the value, so results keep it. Near 1 the spectrum is balanced; far above
    1 a few directions hold everything, far below 1 it is close to noise.

    Args:
        moments: of the rows [n, d].
        first: the first rank of the fit, counted from 1.
        last: the last rank, where the input has as many.

    Returns:
        The exponent; no unit.

    Raises:
        TooFewStimuliError: the rows leave fewer than 20 ranks for the fit.
        DegenerateInputError: the units leave fewer than 20 ranks, or an eigenvalue inside the window is zero.

    Source:
        Agrawal, Mondal, Ghosh & Richards, "α-ReQ: assessing representation quality in self-supervised learning by measuring
        eigenspectrum decay", NeurIPS 2022; after Stringer et al. 2019. The window of ranks is a choice of this library.

    Cost:
        n d² for the scatter, shared with all spectral measures, and d³ for its eigenvalues.

    Bias:
        Too high for small n: the tail of the sample spectrum falls too fast. Keep n well above the last rank.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((4000, 60)) / np.arange(1, 61) ** 0.5
        >>> round(ix.measures.alpha_req(X), 1)
        1.0
    """
    start, stop = fit_window(moments.n, moments.d, first, last)
    chosen = moments.eigenvalues[start - 1 : stop]
    floor = float(moments.eigenvalues[0]) * max(moments.n, moments.d) * torch.finfo(torch.float64).eps
    if float(chosen[-1]) <= floor:
        rank = int((moments.eigenvalues > floor).sum())
        raise DegenerateInputError(
            f"the spectrum ends at rank {rank}, inside the window of ranks {start} to {stop} "
            f"(input [{moments.n:g}, {moments.d}]); set `last` to at most {rank}, or use more varied stimuli"
        )
    x = torch.arange(start, stop + 1, dtype=torch.float64).log()
    y = chosen.log()
    x = x - x.mean()
    return -float((x * y).sum() / (x * x).sum())


def fit_window(n: float, d: int, first: int, last: int) -> tuple[int, int]:
    """The ranks of a fit, from `first` to min(`last`, d, n - 1), at least 20 of them."""
    stop = min(last, d, int(n) - 1)
    if first < 1 or stop - first + 1 < 20:
        text = (
            f"the fit uses ranks {first} to min({last}, d, n - 1) = {stop}, which is {max(0, stop - first + 1)} ranks for an input of "
            f"shape [{n:g}, {d}]; at least 20 are needed"
        )
        if first >= 1 and n - 1 < min(d, last):
            raise TooFewStimuliError(text + f": use {first + 20} or more rows")
        raise DegenerateInputError(text + "; choose `first` and `last` to fit the units")
    return first, stop


def varying(moments: Moments) -> None:
    """Raises when the rows differ by nothing, or by rounding alone."""
    scale = moments.n * float(moments.mean @ moments.mean)
    if moments.trace <= _ROUNDING**2 * scale or moments.trace <= 0:
        raise DegenerateInputError(f"all {moments.n:g} rows are equal (shape [{moments.n:g}, {moments.d}]); there is no spectrum")


def _entropy(weights: Tensor) -> float:
    p = weights / weights.sum()
    return -float(torch.special.xlogy(p, p).sum())


def _above_rounding(eigenvalues: Tensor) -> Tensor:
    """The eigenvalues without those that are rounding of a zero: a thousand of them would count as directions of their own."""
    floor = eigenvalues.shape[0] * torch.finfo(torch.float64).eps * eigenvalues[0]
    return torch.where(eigenvalues > floor, eigenvalues, 0.0)

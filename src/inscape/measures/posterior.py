"""Which latent variables of a variational autoencoder are in use, and how its means differ from its samples."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.results import Curve
from inscape.summaries import Moments
from inscape.summaries.base import Need
from inscape.summaries.posteriors import Posteriors

_CLOSED = 0.95  # a variable is passive when so many of its posteriors are the prior, active when so many are not


@measure(
    invariant={"translation", "permutation", "row_order"},
    sensitive=set(),
    range=(0, "d"),
    source="Burda et al. 2016, appendix C",
    higher="more latent variables in use",
    undefined=(),
    minimum=2,
    null="0 for a collapsed posterior",
)
def active_units(moments: Moments, *, threshold: float = 0.01) -> Curve:
    r"""How many latent variables change with the input: those whose posterior mean has a variance above 0.01.

    $\#\{j : \mathrm{Var}_x(\mu_j(x)) > \mathrm{threshold}\}$ for rows [n, d] of posterior means. The prior has variance 1, and so has a
    sample of a variable that is not in use: give the means, not samples.

    Args:
        moments: of the posterior means [n, d].
        threshold: least variance of a variable in use.

    Returns:
        A curve over units, 1 for an active one and 0 for another; its `value` is their number, from 0 to d.

    Raises:
        DegenerateInputError: `threshold` is negative.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", ICLR 2016, appendix C.

    Cost:
        n d² where the scatter is shared with spectral measures.

    Bias:
        None in the variances (n − 1 in the denominator); the count steps at the threshold.

    Example:
        >>> import numpy as np, inscape as ix
        >>> float(ix.measures.active_units(np.array([[0.0, 1, 0], [0, -1, 0.01]])))
        1.0
    """
    if not threshold >= 0:
        raise DegenerateInputError(f"threshold={threshold} is a variance; give 0 or more")
    active = moments.scatter.diagonal() / (moments.n - 1) > threshold
    return Curve(float(active.sum()), axis="unit", at=range(moments.d), values=active.tolist())


@measure(
    invariant={"row_order"},
    sensitive={"translation", "scale", "permutation"},
    range=(0, math.inf),
    source="Kingma & Welling 2014, appendix B",
    higher="more said about each input",
    undefined=(),
    minimum=1,
    null="0 for a collapsed posterior",
)
def posterior_kl(posteriors: Posteriors) -> Curve:
    r"""How far the posteriors are from the prior: the divergence in nats, the rate of the code.

    The mean over rows of $\sum_j \frac12 (\mu_j^2 + \sigma_j^2 - \log \sigma_j^2 - 1)$ for rows [n, 2m] that hold m means and then the
    logarithms of m variances, as most encoders give them.

    Args:
        posteriors: means and log-variances.

    Returns:
        A curve over latent variables (the mean of each); its `value` is their sum in nats per row, 0 or more.

    Raises:
        DegenerateInputError: an odd number of columns, or variances outside the range of fp64.
        TooFewStimuliError: no row.

    Source:
        Kingma & Welling, "Auto-encoding variational Bayes", ICLR 2014, appendix B.

    Cost:
        n m, and n m² for moments shared with `mean_sampled_gap`.

    Bias:
        None.

    Example:
        >>> import numpy as np, inscape as ix
        >>> float(ix.measures.posterior_kl(np.array([[1.0, 0, 0, 0]])))
        0.5
    """
    each = posteriors.divergence / posteriors.n
    return Curve(float(each.sum()), axis="unit", at=range(posteriors.d), values=each.tolist())


_KINDS = Annotated[Posteriors, Need(threshold="threshold")]


@measure(
    invariant={"row_order"},
    sensitive=set(),
    range=(0, "d"),
    source="Bonheme & Grześ 2023, passive variables",
    higher="more latent variables not in use",
    undefined=(),
    minimum=1,
    null="all of them for a collapsed posterior",
)
def passive_units(posteriors: _KINDS, *, threshold: float = 0.01) -> Curve:
    r"""How many latent variables say nothing about any input: their posterior is the prior in at least 95 % of the rows.

    $\#\{j : \Pr_x(\mathrm{KL}_j(x) < \mathrm{threshold}) \ge 0.95\}$ for rows [n, 2m] of m means, then m logarithms of variances. With
    `mixed_units` the rest is those that speak on nearly every input.

    Args:
        posteriors: means and log-variances.
        threshold: nats below which a posterior counts as the prior.

    Returns:
        A curve over latent variables: the share of rows in which each is closed; its `value` is the number of passive ones.

    Raises:
        DegenerateInputError: an odd number of columns, or variances outside the range of fp64.
        TooFewStimuliError: no row.

    Source:
        Bonheme & Grześ, "Be more active! Understanding the differences between mean and sampled representations of variational
        autoencoders", JMLR 2023. The paper defines the kinds by limits; the nats and the 95 % are of this library.

    Cost:
        n m, and n m² for moments shared with `mean_sampled_gap`.

    Bias:
        None; the count steps at both thresholds.

    Example:
        >>> import numpy as np, inscape as ix
        >>> float(ix.measures.passive_units(np.array([[1.0, 0, 0, 0], [-1, 0, 0, 0]])))
        1.0
    """
    closed = posteriors.closed / posteriors.n
    return Curve(float((closed >= _CLOSED).sum()), axis="unit", at=range(posteriors.d), values=closed.tolist())


@measure(
    invariant={"row_order"},
    sensitive=set(),
    range=(0, "d"),
    source="Bonheme & Grześ 2023, mixed variables",
    higher="more latent variables used for some inputs only",
    undefined=(),
    minimum=1,
    null="0 for a collapsed posterior",
)
def mixed_units(posteriors: _KINDS, *, threshold: float = 0.01) -> Curve:
    r"""How many latent variables speak on some inputs and are silent on others: the prior in 5 to 95 % of the rows.

    $\#\{j : 0.05 < \Pr_x(\mathrm{KL}_j(x) < \mathrm{threshold}) < 0.95\}$ for rows [n, 2m] of m means, then m logarithms of variances.

    Args:
        posteriors: means and log-variances.
        threshold: nats below which a posterior counts as the prior.

    Returns:
        A curve over latent variables: the share of rows in which each is closed; its `value` is the number of mixed ones.

    Raises:
        DegenerateInputError: an odd number of columns, or variances outside the range of fp64.
        TooFewStimuliError: no row.

    Source:
        Bonheme & Grześ, "Be more active! Understanding the differences between mean and sampled representations of variational
        autoencoders", JMLR 2023. The paper defines the kinds by limits; the nats and the shares are of this library.

    Cost:
        n m, and n m² for moments shared with `mean_sampled_gap`.

    Bias:
        None; the count steps at the thresholds.

    Example:
        >>> import numpy as np, inscape as ix
        >>> float(ix.measures.mixed_units(np.array([[1.0, 0, 0, 0], [0, 0, 0, 0]])))
        1.0
    """
    closed = posteriors.closed / posteriors.n
    mixed = (closed > 1 - _CLOSED) & (closed < _CLOSED)
    return Curve(float(mixed.sum()), axis="unit", at=range(posteriors.d), values=closed.tolist())


@measure(
    invariant={"row_order"},
    sensitive={"scale"},
    range=(-1, 1),
    source="Bonheme & Grześ 2023, mean and sampled representations",
    higher="means more correlated than samples",
    minimum=3,
    null="0 without passive variables that follow others",
)
def mean_sampled_gap(posteriors: Posteriors) -> float:
    r"""How much more correlated the means of latent variables are than their samples, as passive variables make them.

    The mean over pairs of variables of $|r_{jk}|$ of the means minus that of samples z = μ + σε, whose covariance is that of the means
    plus $\mathrm{diag}(E\,\sigma^2)$, exactly and without a draw; rows [n, 2m] of m means, then m logarithms of variances.

    Args:
        posteriors: means and log-variances.

    Returns:
        A difference of correlations, from 0 to 1.

    Raises:
        DegenerateInputError: fewer than two variables whose means change, an odd number of columns, or variances outside the range of fp64.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Bonheme & Grześ, "Be more active! Understanding the differences between mean and sampled representations of variational
        autoencoders", JMLR 2023, in closed form.

    Cost:
        n m² for the moments of the means.

    Bias:
        Chance correlations of few rows are of order 1/√n in the means and smaller in samples: too high.

    Example:
        >>> import numpy as np, inscape as ix
        >>> mean = np.array([[1.0, 1], [-1, -1], [0, 0]])
        >>> round(ix.measures.mean_sampled_gap(np.concatenate([mean, np.zeros((3, 2))], 1)), 6)
        0.6
    """
    covariance = posteriors.means.scatter / posteriors.n
    changing = covariance.diagonal() > (1e-13 * posteriors.means.mean.abs()) ** 2
    if int(changing.sum()) < 2:
        raise DegenerateInputError(f"the means of {int(changing.sum())} of {posteriors.d} latent variables change; at least 2 must")
    covariance = covariance[changing][:, changing]
    noise = torch.diag(posteriors.variance[changing] / posteriors.n)
    return _mean_correlation(covariance) - _mean_correlation(covariance + noise)


def _mean_correlation(covariance: Tensor) -> float:
    scale = covariance.diagonal().sqrt()
    correlation = (covariance / scale / scale[:, None]).abs().clamp(max=1)
    m = len(correlation)
    return (float(correlation.sum()) - float(correlation.diagonal().sum())) / (m * (m - 1))

"""Modularity, compactness and explicitness in the terms of information: InfoMEC."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import digamma, logsumexp
from torch import Tensor, linalg

from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.base import measure
from inscape.results import Curve
from inscape.summaries.factors import Factors

_NEIGHBORS = 10
_PRUNED = 1 / 20  # a unit whose range is at most this share of the largest is inactive
_PENALTY = 1e-4
_CLOSE = 1e-9  # of a unit's range: distances that differ by less are equal


@measure(
    invariant={"translation", "scale", "permutation", "row_order"},
    sensitive={"rotation", "unit_scale"},
    range=(0, 1),
    source="Hsu et al. 2023, InfoM",
    higher="units for one factor each",
    minimum=3,
    null="above 0: the largest of a few chance informations exceeds their mean",
)
def infomec_modularity(factors: Factors, *, discrete: bool = False) -> Curve:
    r"""Whether each active unit knows of one factor only: 1 when it does, 0 when it knows as much of each.

    $\left(\frac{1}{|A|} \sum_{j \in A} \frac{\max_i N_{ij}}{\sum_i N_{ij}} - \frac1F\right) / \left(1 - \frac1F\right)$ with
    $N_{ij} = I(s_i; z_j) / H(s_i)$ for F factors s and the units z of rows [n, d] whose range exceeds 1/20 of the largest. Information
    is estimated from 10 nearest neighbors on the unit's axis; continuous factors are cut into 20 bins.

    Args:
        factors: rows [n, d] with at least two factors.
        discrete: units take few values (a quantized code): information is that of the table of counts, and all that change are active.

    Returns:
        A curve over units (0 where inactive or without information); its `value` is the mean over active ones with information.

    Raises:
        DegenerateInputError: fewer than two factors, a factor has one value, no unit changes, or none has information.
        TooFewStimuliError: fewer than 3 rows.

    Warns:
        InscapeWarning: active units that have no information on any factor, with their number; they are left out.

    Source:
        Hsu, Dorrell, Whittington, Wu & Finn, "Disentanglement via latent quantization", NeurIPS 2023 (InfoMEC).

    Cost:
        n log n d for each factor.

    Bias:
        Information from neighbors fluctuates about 0 and is clipped there; little of it makes shares of chance.

    Example:
        >>> import numpy as np, inscape as ix
        >>> shape, size = np.arange(60) % 2, np.arange(60) % 3
        >>> round(float(ix.measures.infomec_modularity(np.stack([shape, size], 1), {"a": shape, "b": size}, discrete=True)), 6)
        1.0
    """
    shared, active = _shared(factors.require(factors=2, units=1), discrete)
    total = shared.sum(0)
    known = active & (total > 0)
    _tell(int((active & (total == 0)).sum()), "infomec_modularity", "units", "factor")
    if not known.any():
        raise DegenerateInputError(f"none of the {int(active.sum())} active units has information on any factor")
    low = 1 / len(factors.names)
    peak = np.where(known, (shared.max(0) / np.where(known, total, 1) - low) / (1 - low), 0).clip(0, 1)
    units = np.zeros(factors.d)
    units[factors.alive] = peak
    return Curve(float(peak[known].mean()), axis="unit", at=range(factors.d), values=units)


@measure(
    invariant={"translation", "scale", "permutation", "row_order"},
    sensitive={"rotation", "unit_scale"},
    range=(0, 1),
    source="Hsu et al. 2023, InfoC",
    higher="factors in one unit each",
    minimum=3,
    null="above 0: the largest of a few chance informations exceeds their mean",
)
def infomec_compactness(factors: Factors, *, discrete: bool = False) -> Curve:
    r"""Whether each factor is known to one active unit only: 1 when it is, 0 when all know as much of it.

    $\left(\frac{1}{F} \sum_i \frac{\max_j N_{ij}}{\sum_j N_{ij}} - \frac{1}{|A|}\right) / \left(1 - \frac{1}{|A|}\right)$ with the
    normalized information N and the active units A of `infomec_modularity`; rows [n, d].

    Args:
        factors: rows [n, d] with their factors.
        discrete: units take few values (a quantized code): information is that of the table of counts, and all that change are active.

    Returns:
        A curve over factors (0 for one that no unit knows); its `value` is the mean over those that some unit knows.

    Raises:
        DegenerateInputError: fewer than two units are active, a factor has one value, or no unit has information.
        TooFewStimuliError: fewer than 3 rows.

    Warns:
        InscapeWarning: factors that no unit has information on, with their number; they are left out.

    Source:
        Hsu, Dorrell, Whittington, Wu & Finn, "Disentanglement via latent quantization", NeurIPS 2023 (InfoMEC).

    Cost:
        n log n d for each factor.

    Bias:
        Information from neighbors fluctuates about 0 and is clipped there; over many units that sums up and makes the share too low.

    Example:
        >>> import numpy as np, inscape as ix
        >>> shape, size = np.arange(60) % 2, np.arange(60) % 3
        >>> round(float(ix.measures.infomec_compactness(np.stack([shape, size], 1), {"a": shape, "b": size}, discrete=True)), 6)
        1.0
    """
    shared, active = _shared(factors.require(units=2), discrete)
    count = int(active.sum())
    if count < 2:
        raise DegenerateInputError(f"{count} unit is active (its range exceeds 1/20 of the largest); compactness needs at least 2")
    shared = shared[:, active]
    total = shared.sum(1)
    known = total > 0
    _tell(int((~known).sum()), "infomec_compactness", "factors", "unit")
    if not known.any():
        raise DegenerateInputError(f"none of the {count} active units has information on any factor")
    peak = np.where(known, (shared.max(1) / np.where(known, total, 1) - 1 / count) / (1 - 1 / count), 0).clip(0, 1)
    return Curve(float(peak[known].mean()), axis="factor", at=factors.names, values=peak)


@measure(
    invariant={"translation", "linear", "row_order"},
    sensitive=set(),
    range=(0, 1),
    source="Hsu et al. 2023, InfoE",
    higher="factors easier to read out linearly",
    minimum=3,
    null="about (values - 1) d / 2n / log(values) from fitting chance",
)
def infomec_explicitness(factors: Factors) -> Curve:
    r"""How much of each factor a linear classifier reads from all units together, as a share of what there is to know.

    The mean over factors of $1 - \mathrm{CE}(s \mid z) / \log K$, with CE the cross-entropy of multinomial logistic regression from the
    rows [n, d] to the K values of the factor, every value weighing the same. Continuous factors are cut into 20 bins.

    Args:
        factors: rows [n, d] with their factors.

    Returns:
        A curve over factors; its `value` is the mean, from 0 to nearly 1.

    Raises:
        DegenerateInputError: no unit changes, or a factor has one value.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Hsu, Dorrell, Whittington, Wu & Finn, "Disentanglement via latent quantization", NeurIPS 2023 (InfoMEC). Here the rows are whitened
        and the weights have a penalty of 1e-4, so that separable values have one solution; there neither.

    Cost:
        n d² to whiten, n d K an iteration.

    Bias:
        In-sample: near 1 whenever d is close to n. Use many more rows than units.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X, noise = np.array([[0.0], [0], [1], [1]]), np.array([0, 1, 0, 1])
        >>> float(ix.measures.infomec_explicitness(X, noise))
        0.0
    """
    X = _whitened(factors.require(units=1)).numpy()
    values = [_read_out(X, factors.codes[name], factors.sizes[name]) for name in factors.names]
    return Curve(float(np.mean(values)), axis="factor", at=factors.names, values=values)


def _shared(factors: Factors, discrete: bool) -> tuple[np.ndarray, np.ndarray]:
    """Normalized information [factors, units that change], and which of these units are active."""
    X = factors.rows[:, torch.from_numpy(factors.alive)].numpy()
    spread = X.max(0) - X.min(0)
    active = spread > (0 if discrete else _PRUNED * spread.max())
    shared = np.zeros((len(factors.names), X.shape[1]))
    for i, codes in enumerate(factors.codes.values()):
        share = np.bincount(codes) / len(codes)
        entropy = float(-(share[share > 0] * np.log(share[share > 0])).sum())
        for j in np.flatnonzero(active):
            found = _counted(codes, X[:, j]) if discrete else _estimated(codes, X[:, j])
            shared[i, j] = found / entropy
    return shared, active


def _counted(codes: np.ndarray, unit: np.ndarray) -> float:
    """Mutual information of two discrete columns, in nats; 0 where it is rounding."""
    places = np.unique(unit, return_inverse=True)[1]
    joint = np.bincount(codes * (places.max() + 1) + places, minlength=(codes.max() + 1) * (places.max() + 1)).astype(float)
    joint = joint.reshape(codes.max() + 1, -1) / len(codes)
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    kept = joint > 0
    found = float((joint[kept] * np.log(joint[kept] / independent[kept])).sum())
    return found if found > 1e-12 else 0.0


def _estimated(codes: np.ndarray, unit: np.ndarray) -> float:
    """Mutual information of a class and a continuous column, in nats, from neighbors within the class (Ross 2014); at least 0."""
    width = float(unit.max() - unit.min())
    kept = np.bincount(codes)[codes] > 1  # a class of one row has no neighbors
    if not kept.any():
        return 0.0
    codes, unit = codes[kept], unit[kept]
    everything = np.sort(unit)
    terms = 0.0
    for value in np.unique(codes):
        own = np.sort(unit[codes == value])
        k = min(_NEIGHBORS, len(own) - 1)
        radius = np.maximum(_reach(own, k) - _CLOSE * width, 0)
        inside = np.searchsorted(everything, own + radius, "right") - np.searchsorted(everything, own - radius, "left")
        terms += len(own) * (digamma(k) - digamma(len(own))) - float(digamma(np.maximum(inside, 1)).sum())
    return max(0.0, float(digamma(len(unit)) + terms / len(unit)))


def _reach(own: np.ndarray, k: int) -> np.ndarray:
    """Distance of each of sorted numbers to its k-th nearest: the smallest window of k + 1 numbers that holds it."""
    n = len(own)
    best = np.full(n, np.inf)
    for start in range(k + 1):  # the window begins `start` places before the number
        first = np.arange(n) - start
        fits = (first >= 0) & (first + k < n)
        ahead, behind = own[np.clip(first + k, 0, n - 1)] - own, own - own[np.clip(first, 0, n - 1)]
        best = np.where(fits, np.minimum(best, np.maximum(ahead, behind)), best)
    return best


def _whitened(factors: Factors) -> Tensor:
    """The rows on an orthonormal basis of their centered span, each direction with variance 1."""
    left, values, _ = linalg.svd(factors.standardized, full_matrices=False)
    rank = int((values > values[0] * max(factors.n, factors.d) * torch.finfo(torch.float64).eps * 16).sum())
    return left[:, :rank] * np.sqrt(factors.n)


def _read_out(X: np.ndarray, codes: np.ndarray, size: int) -> float:
    """1 − cross-entropy / log K of the best logistic regression, every class weighing the same."""
    n, d = X.shape
    weight = (1 / (size * np.bincount(codes, minlength=size)))[codes]
    padded = np.concatenate([X, np.ones((n, 1))], 1)
    picked = np.zeros((n, size))
    picked[np.arange(n), codes] = 1

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        W = flat.reshape(d + 1, size)
        scores = padded @ W
        scores = scores - logsumexp(scores, axis=1, keepdims=True)
        slope = padded.T @ (weight[:, None] * (np.exp(scores) - picked))
        slope[:d] += _PENALTY * W[:d]
        return float(-(weight * (scores * picked).sum(1)).sum() + _PENALTY / 2 * (W[:d] ** 2).sum()), slope.ravel()

    options: dict[str, Any] = {"maxiter": 2000, "maxfun": 4000, "gtol": 1e-9, "ftol": 0.0, "maxcor": 20}
    W = minimize(loss, np.zeros((d + 1) * size), jac=True, method="L-BFGS-B", options=options).x.reshape(d + 1, size)
    scores = padded @ W
    entropy = float((weight * (logsumexp(scores, axis=1) - scores[np.arange(n), codes])).sum())
    return float(np.clip(1 - entropy / np.log(size), 0, 1))


def _tell(count: int, name: str, which: str, other: str) -> None:
    if count:
        warnings.warn(f"{name}: {count} {which} share no information with any {other} and are left out", InscapeWarning, stacklevel=5)

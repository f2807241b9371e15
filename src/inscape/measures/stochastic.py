"""Distances between noisy representations: after the best rotation, of the distribution of responses to every stimulus."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError, StoreMismatchError
from inscape.measures.base import measure
from inscape.summaries.repeats import Repeats
from inscape.summaries.spectra import eigenvectors, singular_vectors

_TOLERANCE = 1e-10
_ITERATIONS = 500


def _aligned(x: Repeats, y: Repeats, *, center: bool) -> tuple[Repeats, Repeats]:
    """Both sides in one space, their grand means at the origin."""
    if x.n != y.n:
        raise StoreMismatchError(f"X has {x.n} stimuli and Y {y.n}; stimulus i of both must be the same")
    d = max(x.d, y.d)
    sides = [Repeats(side.rows - side.means.mean(0)) if center else side for side in (x, y)]
    return sides[0].padded(d), sides[1].padded(d)


def _rotation(M: Tensor) -> Tensor:
    """The orthogonal matrix nearest to M (or to each of a stack)."""
    left, _, right = singular_vectors(M)
    return left @ right


def _starts(guess: Tensor, restarts: int, seed: int) -> list[Tensor]:
    """The rotation of the means first, then random ones."""
    if restarts < 1:
        raise DegenerateInputError(f"restarts={restarts} leaves no start; give 1 or more")
    generator = torch.Generator().manual_seed(seed)
    d = len(guess)
    return [_rotation(guess), *(_rotation(torch.randn(d, d, generator=generator, dtype=torch.float64)) for _ in range(restarts - 1))]


@measure(
    invariant={"translation", "row_order"},
    sensitive={"scale"},
    range=(0, math.inf),
    source="Duong et al. 2023, Gaussian-stochastic shape distance",
    higher="more different",
    symmetric=False,
    undefined=(),
    minimum=3,
    null="near the root of the sum of both sides' spreads for representations with nothing in common",
)
def stochastic_shape(x: Repeats, y: Repeats, *, alpha: float = 1.0, restarts: int = 4, center: bool = True, seed: int = 0) -> float:
    r"""The distance between two noisy representations after the best rotation: of their mean responses and of their noise.

    $\min_Q \Big[ \frac{1}{m} \sum_i \alpha \lVert \mu_i - Q \nu_i \rVert^2 + (2 - \alpha)\, \mathcal{B}^2(S_i, Q T_i Q^\top) \Big]^{1/2}$
    over rotations Q, with the mean μ, ν and covariance S, T of the responses to stimulus i and the Bures distance $\mathcal{B}$ of
    covariances. Repeats [m, r, p] and [m, r′, q]; the narrower side is padded with units of zeros. α = 2 compares means alone, α = 0
    noise alone. Rotations and matchings of the noise alternate until nothing changes, from several starts; the least is taken.

    Args:
        x: repeats of the first system.
        y: repeats of the second system.
        alpha: weight of the means against the noise, from 0 to 2.
        restarts: starts of the search; the first is the rotation of the means.
        center: put the grand mean of each side at the origin first.
        seed: of the random starts.

    Returns:
        A distance, 0 or more, in units of activation. The least value is a metric for a fixed α and blind to rotations; the search may
        end a little above it, so that symmetry and rotations hold to about a percent.

    Raises:
        DegenerateInputError: `alpha` is outside 0 to 2, or the input is no array [m, r, d].
        TooFewStimuliError: fewer than 3 stimuli, or stimuli that were shown once.
        StoreMismatchError: the systems have different stimuli.

    Source:
        Duong, Zhou, Nassar, Berman, Olieslagers & Williams, "Representational dissimilarity metric spaces for stochastic neural
        networks", ICLR 2023.

    Cost:
        m r d² for covariances and m d³ a step of the search.

    Bias:
        Too high: covariances from few repeats differ by chance; a search may end above the least value.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((8, 6, 3))
        >>> round(ix.measures.stochastic_shape(X, X[..., ::-1].copy()), 5)
        0.0
    """
    if not 0 <= alpha <= 2:
        raise DegenerateInputError(f"alpha={alpha} is outside 0 to 2: 2 compares means alone, 0 noise alone")
    x, y = _aligned(x, y, center=center)
    weight, noise = math.sqrt(alpha), math.sqrt(2 - alpha)
    roots_x, roots_y = (noise * _roots(side.covariances) for side in (x, y))
    means_x, means_y = weight * x.means, weight * y.means
    fixed = torch.cat([means_x, roots_x.flatten(0, 1)])
    best = math.inf
    for Q in _starts(y.means.T @ x.means, restarts, seed):
        value, rotation = math.inf, Q
        for _ in range(_ITERATIONS):
            matched = _rotation(roots_x @ rotation.T @ roots_y) @ roots_y
            moved = torch.cat([means_y, matched.flatten(0, 1)])
            rotation = _rotation(moved.T @ fixed)
            now = float((fixed - moved @ rotation).square().sum()) / x.n
            if value - now <= _TOLERANCE * max(now, 1e-300):
                value = min(value, now)
                break
            value = now
        best = min(best, value)
    scale = float(fixed.square().sum()) / x.n
    return math.sqrt(best) if best > 1e-13 * scale else 0.0


def _roots(covariances: Tensor) -> Tensor:
    values, vectors = eigenvectors(covariances)
    return (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.transpose(1, 2)


@measure(
    invariant={"translation", "row_order"},
    sensitive=set(),
    range=(0, math.inf),
    source="Duong et al. 2023, energy shape distance",
    higher="more different",
    symmetric=False,
    undefined=(),
    minimum=3,
    null="above 0 for representations with nothing in common; exactly 0 is given where noise exceeds the difference",
    reflexive=False,
)
def stochastic_shape_energy(x: Repeats, y: Repeats, *, restarts: int = 4, center: bool = True, seed: int = 0) -> float:
    r"""The energy distance between two noisy representations after the best rotation: of whole distributions, whatever their shape.

    $\min_Q \Big[ \frac{1}{m} \sum_i E \lVert x_i - Q y_i \rVert - \tfrac{1}{2} E \lVert x_i - x_i' \rVert - \tfrac{1}{2} E \lVert y_i -
    y_i' \rVert \Big]_+^{1/2}$ over rotations Q, with expectations over presentations of stimulus i (different ones within a side).
    Repeats [m, r, p] and [m, r′, q]; the narrower side is padded. The search reweights residuals until nothing changes, from several
    starts.

    Args:
        x: repeats of the first system.
        y: repeats of the second system.
        restarts: starts of the search; the first is the rotation of the means.
        center: put the grand mean of each side at the origin first.
        seed: of the random starts.

    Returns:
        A distance, 0 or more, in the root of the units of activation; 0 where the unbiased estimate is negative. Symmetric and blind to
        rotations up to what the search finds.

    Raises:
        DegenerateInputError: the input is no array [m, r, d].
        TooFewStimuliError: fewer than 3 stimuli, or stimuli that were shown once.
        StoreMismatchError: the systems have different stimuli.

    Source:
        Duong, Zhou, Nassar, Berman, Olieslagers & Williams, "Representational dissimilarity metric spaces for stochastic neural
        networks", ICLR 2023.

    Cost:
        m r r′ d a step of the search, and d³.

    Bias:
        Little: presentations are never compared with themselves, so equal distributions give 0; a rotation fits some noise.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((8, 6, 3))
        >>> ix.measures.stochastic_shape_energy(X, X[..., ::-1].copy())
        0.0
    """
    x, y = _aligned(x, y, center=center)
    best = math.inf
    for Q in _starts(y.means.T @ x.means, restarts, seed):
        value, rotation = math.inf, Q
        for _ in range(_ITERATIONS):
            lengths = torch.cdist(x.rows, y.rows @ rotation)
            now = float(lengths.mean())
            if value - now <= _TOLERANCE * max(now, 1e-300):
                value = min(value, now)
                break
            value = now
            weights = 1 / lengths.clamp(min=1e-12 * max(now, 1e-300))
            rotation = _rotation(torch.einsum("mrs,msi,mrj->ij", weights, y.rows, x.rows))
        best = min(best, value)
    left = best - (_within(x) + _within(y)) / 2
    return math.sqrt(max(0.0, left))


def _within(side: Repeats) -> float:
    """Mean distance between different presentations of one stimulus."""
    count = side.rows.shape[1]
    return float(torch.cdist(side.rows, side.rows).sum()) / (side.n * count * (count - 1))

"""Similarity of two representations from kernels or distances between their stimuli that are not linear."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.summaries import RDM
from inscape.summaries.base import Need
from inscape.summaries.batches import BatchProducts

Distances = Annotated[RDM, Need(metric="euclidean")]


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, 1),
    source="Kornblith et al. 2019, RBF kernel",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="grows as the bandwidth shrinks: near 1 where the kernel is almost the identity",
)
def rbf_cka(x: Distances, y: Distances, *, bandwidth: float | tuple[float, float] = 0.5) -> float:
    r"""The similarity of two representations' Gaussian kernels, which look at near stimuli more than at far ones.

    $\langle HKH, HLH \rangle / (\lVert HKH \rVert \lVert HLH \rVert)$ with $K_{ij} = \exp(-\lVert x_i - x_j \rVert^2 / 2\sigma^2)$, the
    centering H, and σ = `bandwidth` times the median distance of a side; paired rows [n, d]. The bandwidth decides the number:
    others take the median itself, or σ = 1 on unit rows. A large one gives linear CKA.

    Args:
        x: distances in the first system.
        y: distances in the second system.
        bandwidth: σ over the median distance; two numbers for different ones on the two sides.

    Returns:
        A similarity without unit, from 0 to 1.

    Raises:
        DegenerateInputError: at least half of the distances are 0, all rows are equally similar, or `bandwidth` is not positive.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Kornblith, Norouzi, Lee & Hinton, "Similarity of neural network representations revisited", ICML 2019 (RBF kernel, bandwidth
        as a fraction of the median distance).

    Cost:
        n² d for the distances of each system; n² beyond them.

    Bias:
        Too high for few stimuli, like `linear_cka`, the more so the smaller the bandwidth. Read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> round(ix.measures.rbf_cka(X, 2 * X + 1), 6)
        1.0
    """
    given = bandwidth if isinstance(bandwidth, tuple) else (bandwidth, bandwidth)
    if len(given) != 2 or not all(one > 0 for one in given):
        raise DegenerateInputError(f"bandwidth={bandwidth} must be positive: a number, or one for each side")
    K, L = (_centered(_gaussian(rdm, one, name)) for rdm, one, name in zip((x, y), given, "XY", strict=True))
    return min(1.0, _cosine(K, L, "kernel"))


def _gaussian(rdm: RDM, bandwidth: float, name: str) -> Tensor:
    median = float(rdm.values.median())
    if median <= 0:
        raise DegenerateInputError(f"at least half of the distances of {name} are 0 ({rdm.n} rows), so the median sets no bandwidth")
    return torch.exp(-0.5 * (rdm.square() / (bandwidth * median)).square())


def _centered(K: Tensor) -> Tensor:
    means = K.mean(0)
    return K - means - means[:, None] + means.mean()


def _cosine(K: Tensor, L: Tensor, what: str) -> float:
    sizes = [float(matrix.square().sum()) for matrix in (K, L)]
    for size, matrix, name in zip(sizes, (K, L), "XY", strict=True):
        if size <= (1e-13 * len(matrix)) ** 2 * float(matrix.abs().max() + 1) ** 2 or size <= 0:
            raise DegenerateInputError(f"the centered {what} of {name} is zero: its {len(matrix)} rows are all equally near to each other")
    return max(0.0, float((K * L).sum()) / math.sqrt(sizes[0] * sizes[1]))


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, 1),
    source="Székely et al. 2007",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="grows with d/n, like linear_cka",
)
def distance_correlation(x: Distances, y: Distances) -> float:
    r"""The correlation of two representations' distance matrices, centered in both directions: 0 only under independence.

    $\sqrt{\langle HDH, HEH \rangle / (\lVert HDH \rVert \lVert HEH \rVert)}$ with the Euclidean distances D, E (not squared) of paired rows
    [n, d] and the centering H.

    Args:
        x: distances in the first system.
        y: distances in the second system.

    Returns:
        A correlation, from 0 to 1.

    Raises:
        DegenerateInputError: all rows of one input are equal.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Székely, Rizzo & Bakirov, "Measuring and testing dependence by correlation of distances", Annals of Statistics 2007.

    Cost:
        n² d for the distances of each system; n² beyond them.

    Bias:
        Too high for few stimuli and many units; `distance_correlation_debiased` is not. Read it with its null.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> round(ix.measures.distance_correlation(X, 2 * X + 1), 6)
        1.0
    """
    return min(1.0, math.sqrt(_cosine(_centered(x.square()), _centered(y.square()), "distance matrix")))


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(-1, 1),
    source="Székely & Rizzo 2014",
    higher="more similar",
    symmetric=True,
    minimum=4,
    null="0 for independent representations",
)
def distance_correlation_debiased(x: Distances, y: Distances) -> float:
    r"""The bias-corrected squared distance correlation: 0 on average for independent representations, whatever their width.

    $\tilde D \cdot \tilde E / \sqrt{(\tilde D \cdot \tilde D)(\tilde E \cdot \tilde E)}$ with U-centered distance matrices (zero
    diagonal, row sums over n − 2) of paired rows [n, d].

    Args:
        x: distances in the first system.
        y: distances in the second system.

    Returns:
        A squared correlation, from −1 to 1.

    Raises:
        DegenerateInputError: all rows of one input are equal, or equally far from each other.
        TooFewStimuliError: fewer than 4 rows.

    Source:
        Székely & Rizzo, "Partial distance correlation with methods for dissimilarities", Annals of Statistics 2014.

    Cost:
        n² d for the distances of each system; n² beyond them.

    Bias:
        None under independence.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> round(ix.measures.distance_correlation_debiased(X, 2 * X + 1), 6)
        1.0
    """
    D, E = (_u_centered(rdm) for rdm in (x, y))
    sizes = [float(matrix.square().sum()) for matrix in (D, E)]
    for size, rdm, name in zip(sizes, (x, y), "XY", strict=True):
        if size <= 1e-24 * float(rdm.values.square().sum()) or size <= 0:
            raise DegenerateInputError(f"the {rdm.n} rows of {name} are all equally far from each other, so there is nothing to correlate")
    return max(-1.0, min(1.0, float((D * E).sum()) / math.sqrt(sizes[0] * sizes[1])))


def _u_centered(rdm: RDM) -> Tensor:
    D, n = rdm.square(), rdm.n
    sums = D.sum(0)
    centered = D - sums / (n - 2) - sums[:, None] / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    return centered.fill_diagonal_(0.0)


@measure(
    invariant={"scale", "permutation", "row_order"},
    sensitive={"translation", "rotation", "linear", "unit_scale"},
    range=(0, math.inf),
    source="Yin & Shen 2018; ReSi",
    higher="more different",
    symmetric=True,
    minimum=3,
    null="of the order of the number of stimuli for independent representations",
)
def rsm_norm_difference(x: Annotated[RDM, Need(metric="correlation")], y: Annotated[RDM, Need(metric="correlation")]) -> float:
    r"""How far two representational similarity matrices are apart, over all pairs of stimuli.

    $\lVert R_X - R_Y \rVert_F$ over the full n × n matrices of correlations between rows across units; paired rows [n, d]. It grows with
    n. A library gives the spectral norm under this name.

    Args:
        x: correlation distances in the first system.
        y: correlation distances in the second system.

    Returns:
        A distance, 0 or more; at most 2 sqrt(n (n − 1)).

    Raises:
        DegenerateInputError: a row is constant across units.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Yin & Shen, "On the dimensionality of word embedding", NeurIPS 2018 (pairwise inner product loss), on correlations.

    Cost:
        n² d for the correlations of each system; n² beyond them.

    Bias:
        Noise in either system adds to it.

    Example:
        >>> import numpy as np, inscape as ix
        >>> rows = np.array([[1.0, 2, 3], [1, 2, 3], [3, 2, 1]])
        >>> round(ix.measures.rsm_norm_difference(rows, rows[::-1].copy()) ** 2, 6)
        16.0
    """
    return math.sqrt(2 * float((x.values - y.values).square().sum()))


@measure(
    invariant={"translation", "rotation", "scale"},
    sensitive={"linear", "unit_scale"},
    range=(-1, 1),
    source="Nguyen et al. 2021, eq. 3",
    higher="more similar",
    symmetric=True,
    minimum=4,
    null="0 for independent representations",
    record=lambda n, d, batch, seed: {"batches": -(-n // batch), "order": "as given" if seed is None else f"shuffled by {seed}"},
)
def minibatch_cka(pair: Annotated[BatchProducts, Need(batch="batch", seed="seed")], *, batch: int = 256, seed: int | None = None) -> float:
    r"""Debiased CKA averaged over batches: another number than `linear_cka_debiased` of all rows, which costs less here.

    $\sum_b h_b(K, L) / \sqrt{\sum_b h_b(K, K) \sum_b h_b(L, L)}$ with Song's unbiased estimate $h_b$ on the b-th batch of rows, linear
    kernels, paired rows [n, d]. It depends on the size and the order of the batches, which the result records. Offered for comparison
    with published numbers; moments give the exact value of all rows in one pass.

    Args:
        pair: kernel products of every batch.
        batch: rows of a batch; a last one of fewer than four is left out.
        seed: shuffles the rows first; None takes them in their order.

    Returns:
        A similarity, from −1 to 1.

    Raises:
        DegenerateInputError: the summed self-similarity of one input is not positive.
        TooFewStimuliError: fewer than 4 rows, or batches of fewer than 4.

    Source:
        Nguyen, Raghu & Kornblith, "Do wide and deep networks learn the same things?", ICLR 2021.

    Cost:
        n (p + q)² over all batches.

    Bias:
        None under independence; its mean differs from that of all rows.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((60, 4))
        >>> round(ix.measures.minibatch_cka(X, 2 * X + 1, batch=20), 6)
        1.0
    """
    sums = [sum(values) for values in zip(*(part.hsic_unbiased() for part in pair.parts), strict=True)]
    biased = [sum(values) for values in zip(*(part.hsic_biased() for part in pair.parts), strict=True)]
    for own, whole, name in zip(sums[1:], biased[1:], "XY", strict=True):
        if own <= 1e-13 * abs(whole) or own <= 0:
            raise DegenerateInputError(f"the unbiased self-similarity of {name} summed over {len(pair.parts)} batches is {own:.3g}")
    return max(-1.0, min(1.0, sums[0] / math.sqrt(sums[1] * sums[2])))

"""Whether each factor of the stimuli has a unit of its own: gaps between the best unit and the next, and distances that agree."""

from __future__ import annotations

import math

import numpy as np
import torch

from inscape.arrays import format_bytes, row_blocks
from inscape.errors import DegenerateInputError, MemoryBudgetError
from inscape.measures.base import measure
from inscape.results import Curve
from inscape.summaries.factors import BINS, Factors, binned

_MOST_PAIRS = 50_000_000


@measure(
    invariant={"translation", "scale", "permutation", "unit_scale", "row_order"},
    sensitive={"rotation"},
    range=(0, 1),
    source="Chen et al. 2018, mutual information gap",
    higher="each factor in a unit of its own",
    minimum=2,
    null="near 0, though the plug-in information of few rows is not: about (bins - 1)(values - 1) / 2n for each unit",
)
def mig(factors: Factors) -> Curve:
    r"""The mutual information gap: how much more the best unit knows of a factor than the second best, as a share of what there is to know.

    The mean over factors v of $(I(z_{(1)}; v) - I(z_{(2)}; v)) / H(v)$, the units of the rows [n, d] in order of their information on v.
    Units and continuous factors are cut into 20 bins of equal width; information is that of the table of counts.

    Args:
        factors: rows [n, d] with their factors.

    Returns:
        A curve over factors; its `value`, the mean, goes from 0 (two units know as much) to 1 (one unit knows all, the others nothing).

    Raises:
        DegenerateInputError: fewer than two units change, or a factor has one value only.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Chen, Li, Grosse & Duvenaud, "Isolating sources of disentanglement in variational autoencoders", NeurIPS 2018, eq. 6; the bins
        are those of Locatello et al. 2019.

    Cost:
        n d for each factor.

    Bias:
        Information from counts is too high for few rows in every unit alike, so that the gap shrinks less than its terms grow.

    Example:
        >>> import numpy as np, inscape as ix
        >>> shape, size = np.arange(12) % 2, np.arange(12) % 3
        >>> round(float(ix.measures.mig(np.stack([shape, size], 1), {"shape": shape, "size": size})), 6)
        1.0
    """
    factors.require(units=2)
    units = binned(factors.rows[:, torch.from_numpy(factors.alive)].numpy())
    values: list[float] = []
    for name, codes in factors.codes.items():
        known = np.sort([_information(codes, units[:, j], factors.sizes[name]) for j in range(units.shape[1])])
        values.append((known[-1] - known[-2]) / _entropy(codes))
    return Curve(float(np.mean(values)), axis="factor", at=factors.names, values=values)


@measure(
    invariant={"translation", "scale", "permutation", "unit_scale", "row_order"},
    sensitive={"rotation"},
    range=(0, 1),
    source="Kumar et al. 2018, separated attribute predictability",
    higher="each factor in a unit of its own",
    minimum=2,
    null="near 0: the best two units of many predict a factor equally badly by chance",
)
def sap(factors: Factors) -> Curve:
    r"""How much better the best unit alone predicts a factor than the second best.

    The mean over factors of the difference of the two largest scores. A unit's score of a continuous factor is the squared correlation;
    of a category with K values the largest balanced accuracy of K − 1 thresholds that cut the line into one class each, found exactly.

    Args:
        factors: rows [n, d] with their factors.

    Returns:
        A curve over factors; its `value` is the mean, from 0 to 1, or at most 1 − 1/K for a factor of K values.

    Raises:
        DegenerateInputError: fewer than two units change, or a factor has one value only.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Kumar, Sattigeri & Balakrishnan, "Variational inference of disentangled latent concepts from unlabeled observations", ICLR 2018.
        Scored on the rows themselves; libraries that fit a linear SVM to each unit give another number.

    Cost:
        n log n d for each factor; thresholds n K² d more.

    Bias:
        In-sample: thresholds fit some chance in every unit, so that the gap shrinks for few rows.

    Example:
        >>> import numpy as np, inscape as ix
        >>> shape = np.array([0, 0, 1, 1])
        >>> float(ix.measures.sap(np.array([[0.0, 0], [1, 5], [4, 0], [5, 5]]), shape))
        0.5
    """
    factors.require(units=2)
    values: list[float] = []
    units = factors.standardized.numpy()
    for name in factors.names:
        if factors.continuous[name]:
            target = factors.table[name].astype(float)
            target = (target - target.mean()) / target.std()
            scores = (units.T @ target / factors.n) ** 2
        else:
            scores = _threshold_accuracy(units, factors.codes[name], factors.sizes[name])
        first, second = np.sort(scores)[::-1][:2]
        values.append(float(np.clip(first - second, 0, 1)))
    return Curve(float(np.mean(values)), axis="factor", at=factors.names, values=values)


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(-1, 1),
    source="Brighton & Kirby 2006",
    higher="distances follow the factors",
    minimum=3,
    null="0 for rows that know nothing of the factors",
)
def topographic_similarity(factors: Factors) -> float:
    r"""Whether stimuli that share factors lie near each other: the rank correlation of distances between rows and between factors.

    Spearman's correlation over all pairs of rows [n, d] of the Euclidean distance with the distance in factors: the number of factors that
    differ, a continuous factor counting by the difference relative to its range.

    Args:
        factors: rows [n, d] with their factors.

    Returns:
        A correlation, from −1 to 1.

    Raises:
        DegenerateInputError: all distances are equal, on either side, or a factor has one value only.
        TooFewStimuliError: fewer than 3 rows.
        MemoryBudgetError: more than 10,000 rows; take a sample of them.

    Source:
        Brighton & Kirby, "Understanding linguistic evolution by visualizing the emergence of topographic mappings", Artificial Life 2006;
        there the signals are strings and the distance between them an edit distance.

    Cost:
        n² d, and n² log n for ranks.

    Bias:
        None: independent rows give 0 on average. Pairs of rows are dependent, so shuffle stimuli for p.

    Example:
        >>> import numpy as np, inscape as ix
        >>> grid = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> round(ix.measures.topographic_similarity(grid, grid), 6)
        1.0
    """
    n = factors.n
    if n * (n - 1) // 2 > _MOST_PAIRS:
        raise MemoryBudgetError(
            f"{n:,} rows make {n * (n - 1) // 2:,} pairs, {format_bytes(24 * n * (n - 1) / 2)}; sample at most 10,000 rows"
        )
    ranks = [_ranks(side) for side in _pair_distances(factors)]
    first, second = (side - side.mean() for side in ranks)
    scale = math.sqrt(float(first @ first) * float(second @ second))
    if scale == 0:
        raise DegenerateInputError(
            f"all {n * (n - 1) // 2} distances between rows, or between their factors, are equal; they have no ranks"
        )
    return float(np.clip(first @ second / scale, -1, 1))


def _pair_distances(factors: Factors) -> tuple[np.ndarray, np.ndarray]:
    """Distances between rows and between their factors, for all pairs of rows."""
    rows = factors.rows - factors.rows[0]
    rows = rows / max(float(rows.abs().max()), 1e-300)  # squares of large values would overflow
    X = (rows - rows.mean(0)).numpy()
    squares = np.einsum("nd,nd->n", X, X)
    seen: dict[bytes, int] = {}
    kind = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in X])  # rows that are equal have one number
    continuous = [factors.table[name].astype(float) for name in factors.names if factors.continuous[name]]
    scaled = [(column - column.min()) / (column.max() - column.min()) for column in continuous]
    codes = [factors.codes[name] for name in factors.names if not factors.continuous[name]]
    n = factors.n
    apart, differ = np.zeros(n * (n - 1) // 2), np.zeros(n * (n - 1) // 2)
    done = 0
    for block in row_blocks(n, n):
        first = block.start
        between = squares[block, None] + squares[first:] - 2 * X[block] @ X[first:].T
        # Products lose the digits of small distances: those are taken from differences, 0 where rows are equal.
        i, j = np.nonzero(between < 1e-9 * (squares[block, None] + squares[first:]))
        different = kind[first + i] != kind[first + j]
        between[i, j] = 0
        for part in row_blocks(int(different.sum()), X.shape[1]):
            left, right = i[different][part], j[different][part]
            between[left, right] = np.square(X[first + left] - X[first + right]).sum(1)
        steps = np.zeros_like(between)
        for column in codes:
            steps += column[block, None] != column[first:]
        for column in scaled:
            steps += np.abs(column[block, None] - column[first:])
        np.sqrt(between, out=between)
        for row in range(len(between)):
            after = slice(done, done + n - first - row - 1)
            apart[after], differ[after] = between[row, row + 1 :], steps[row, row + 1 :]
            done = after.stop
    return apart, differ


def _ranks(values: np.ndarray) -> np.ndarray:
    """Mean ranks; values that are equal up to a billionth of the largest share one."""
    keys = torch.from_numpy(np.rint(values * (1e9 / max(float(values.max()), 1e-300))).astype(np.int32))
    ordered, order = torch.sort(keys)  # of whole numbers of 32 bits, which sort several times faster than fp64
    _, place, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
    ranks = torch.empty(len(values), dtype=torch.float64)
    ranks[order] = (counts.cumsum(0) - (counts - 1).double() / 2)[place]
    return ranks.numpy()


def _entropy(codes: np.ndarray) -> float:
    share = np.bincount(codes) / len(codes)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def _information(codes: np.ndarray, unit: np.ndarray, size: int) -> float:
    """Mutual information of two columns of counts, in nats."""
    joint = np.bincount(codes * BINS + unit, minlength=size * BINS).reshape(size, BINS) / len(codes)
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    kept = joint > 0
    return max(0.0, float((joint[kept] * np.log(joint[kept] / independent[kept])).sum()))


def _threshold_accuracy(units: np.ndarray, codes: np.ndarray, size: int) -> np.ndarray:
    """For each unit of [n, d] the best balanced accuracy of `size` intervals, one class each, by dynamic programming along the line."""
    n, d = units.shape
    order = np.argsort(units, 0, kind="stable")
    values, classes = np.take_along_axis(units, order, 0), codes[order]
    weight = 1 / (size * np.bincount(codes, minlength=size))
    # best[unit, s, c]: most weight that is right so far with s + 1 intervals, the last of class c.
    best = np.full((d, size, size), -np.inf)
    best[:, 0] = 0
    every = np.arange(d)
    for i in range(n):
        if i:
            cut = values[i] > values[i - 1] + 1e-12 * np.abs(values[i])  # equal values cannot be cut apart
            opened = np.where(cut[:, None], best[:, :-1].max(2), -np.inf)
            best[:, 1:] = np.maximum(best[:, 1:], opened[:, :, None])
        best[every, :, classes[i]] += weight[classes[i]][:, None]
    return best.max((1, 2))

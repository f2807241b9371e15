"""The best transport plan between two sets of equally weighted points."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import coo_array

from inscape.errors import MemoryBudgetError

# Copies of each point that an assignment may need; beyond it a linear program is quicker.
_COPIES = 4096
# Numbers of a plan beyond which the linear program takes minutes and gigabytes.
_LARGEST = 2_000_000


def transport(gain: np.ndarray) -> float:
    """The largest Σ T_ij gain_ij over plans T ≥ 0 with row sums 1/p and column sums 1/q, exactly; gain is [p, q].

    With copies of each point up to a common multiple of p and q the plan is an assignment (a vertex of the transport polytope is one).

    Raises:
        MemoryBudgetError: a plan of more than two million numbers, where the counts have no small common multiple.
    """
    p, q = gain.shape
    multiple = math.lcm(p, q)
    if multiple <= _COPIES:
        copies = np.repeat(np.repeat(gain, multiple // p, 0), multiple // q, 1)
        rows, columns = linear_sum_assignment(copies, maximize=True)
        return float(copies[rows, columns].mean())
    if p * q > _LARGEST:
        raise MemoryBudgetError(
            f"a transport plan between {p:,} and {q:,} units holds {p * q:,} numbers, and {_LARGEST:,} are the most here, where the two "
            "numbers have no small common multiple; select units, or use neuron_match or neuron_match_soft"
        )
    index = np.arange(p * q)
    sums = coo_array((np.ones(2 * p * q), (np.concatenate([index // q, p + index % q]), np.tile(index, 2))), shape=(p + q, p * q))
    bounds = np.concatenate([np.full(p, 1 / p), np.full(q, 1 / q)])
    # The sums over rows and over columns agree, so that one equation follows from the others.
    solved = linprog(-gain.ravel(), A_eq=sums.tocsr()[:-1], b_eq=bounds[:-1], method="highs")
    return float(-solved.fun)

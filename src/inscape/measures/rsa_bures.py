"""Comparison of dissimilarity matrices through the kernels behind them."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.summaries import RDM
from inscape.summaries.base import Need

Squares = Annotated[RDM, Need(metric="squared_euclidean")]


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, 1),
    source="Harvey et al. 2024",
    higher="more similar",
    symmetric=True,
    minimum=3,
    null="grows with d/n: it is the cosine of procrustes",
)
def rsa_bures(x: Squares, y: Squares) -> float:
    r"""How well the kernels behind two dissimilarity matrices agree after the best rotation between the spaces that give them.

    $\operatorname{tr} (A^{1/2} B A^{1/2})^{1/2} / \sqrt{\operatorname{tr} A \operatorname{tr} B}$ with $A = -\frac12 H D H$, for squared
    Euclidean distances per unit of paired rows [n, d]. It is the cosine of `procrustes`.

    Args:
        x: dissimilarities of the first system.
        y: dissimilarities of the second system.

    Returns:
        A similarity without unit, from 0 to 1.

    Raises:
        DegenerateInputError: all rows of one input are equal, or fp64 cannot hold their squares.
        TooFewStimuliError: fewer than 3 rows.

    Source:
        Harvey, Lipshutz & Williams, "What representational similarity measures imply about decodable information", 2024 (normalized Bures
        similarity, dual to Procrustes).

    Cost:
        n² d for the dissimilarities of each system, two eigendecompositions and one set of singular values of n × n.

    Bias:
        Too high for few stimuli, as the angle of `procrustes` is too small.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((20, 6))
        >>> round(ix.measures.rsa_bures(X, 5 * X), 6)
        1.0
    """
    roots, traces = zip(*(kernel_root(rdm.square(), name) for rdm, name in ((x, "X"), (y, "Y"))), strict=True)
    nuclear = float(torch.linalg.svdvals(roots[0].T @ roots[1]).sum())
    return min(1.0, nuclear / math.sqrt(traces[0] * traces[1]))


def kernel_root(D: Tensor, name: str) -> tuple[Tensor, float]:
    """R [n, n] with R Rᵀ = −½ H D H, and the trace of that; directions that no real space gives (negative eigenvalues) are left out."""
    means = D.mean(0)
    A = -0.5 * (D - means - means[:, None] + means.mean())
    if not bool(torch.isfinite(A).all()):
        raise DegenerateInputError(f"squares of {name} leave the range of fp64; multiply the rows by a constant first")
    values, vectors = torch.linalg.eigh(A)
    kept = values.clamp(min=0)
    trace = float(kept.sum())
    if trace <= 1e-14 * float(D.abs().max()) or trace <= 0:
        raise DegenerateInputError(f"all dissimilarities of {name} are zero ({len(D)} rows); there is no geometry to compare")
    return vectors * kept.sqrt(), trace

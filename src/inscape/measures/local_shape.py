"""The shape of the cloud near single rows: how many directions a neighborhood has, and how far it bends away from flat."""

from __future__ import annotations

import math
import warnings
from typing import Annotated

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inscape.arrays import compute_dtype, row_blocks, threads
from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.base import measure
from inscape.measures.dimension import distinct
from inscape.summaries import Neighbors, Rows
from inscape.summaries.base import Need

_FLAT = 1e-6  # share of the widest direction below which a direction of a neighborhood is rounding
_TILE = 4 * 2**20  # bytes of the neighborhoods that are held at a time: they stay near the caches
_FLOOR = 1e-12  # relative cut of the eigenvalues in least-squares fits

Around = Annotated[Neighbors, Need(metric="euclidean", center=True, k="k")]


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(1, "d"),
    source="Fukunaga & Olsen 1971, local",
    higher="more dimensions",
    undefined={"constant"},
    minimum=10,
    status="provisional",
)
def local_dimension(neighbors: Around, rows: Rows, *, k: int = 20, centers: int = 1024) -> float:
    r"""The number of directions in which rows vary around a row, averaged over rows.

    Around each center the k nearest rows [d] are centered, and the participation ratio
    $(\sum_i \lambda_i)^2 / \sum_i \lambda_i^2$ of the eigenvalues $\lambda$ of their covariance is the dimension there. Up to `centers`
    distinct rows, each is a center.

    Args:
        neighbors: Euclidean distances to the nearest rows.
        rows: the rows [n, d].
        k: rows of a neighborhood.
        centers: most rows around which directions are counted: distinct rows at even quantiles of the distance to the k-th neighbor.

    Returns:
        Directions, from 1 to min(k - 1, d).

    Raises:
        TooFewStimuliError: fewer than 10 or k + 1 distinct rows.
        DegenerateInputError: all rows are equal, k is below 3, or `centers` below 1.

    Warns:
        InscapeWarning: some rows repeat others.

    Source:
        Fukunaga & Olsen, "An algorithm for finding intrinsic dimensionality of data", IEEE Transactions on Computers 1971: principal
        components of neighborhoods. The participation ratio in place of a threshold is a choice of this library.

    Cost:
        n² d for the neighbors, shared by all measures of neighbors; then centers k² d.

    Bias:
        Too low: a sample of k rows cannot show more than k - 1 directions, and shows about d k / (d + k) of d even ones. Noise adds
        directions, curvature bends into further ones.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).random((2000, 2)) @ np.eye(2, 50)
        >>> round(ix.measures.local_dimension(X, k=50), 1)
        1.9
    """
    if k < 3:
        raise DegenerateInputError(f"k = {k}: a neighborhood needs at least 3 rows")
    graph, kept = _distinct(neighbors, rows, "local_dimension", k)
    wide = kept.to(compute_dtype(kept.dtype))
    ratios: list[Tensor] = []
    with threads(1):  # many small products: more threads would wait for each other
        for part in _split(_centers(graph, k, centers), k, kept.shape[1]):
            near = wide.index_select(0, graph.ids[part, :k].reshape(-1)).view(len(part), k, -1)
            near.sub_(wide[part].unsqueeze(1))  # small numbers before any product, wherever the rows lie
            products = (near @ near.mT).double()
            means = products.mean(1, keepdim=True)
            products = products - means - means.mT + means.mean(2, keepdim=True)  # of the centered neighborhood
            trace = products.diagonal(dim1=1, dim2=2).sum(1)
            shares = products / trace.clamp(min=torch.finfo(torch.float64).tiny).view(-1, 1, 1)  # squares of very large rows stay finite
            ratios.append(1 / shares.square().sum((1, 2)).clamp(min=1 / k))
    return max(1.0, float(torch.cat(ratios).mean()))


@measure(
    invariant={"translation", "rotation", "scale", "row_order"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Kaufman & Azencot 2023, mean absolute principal curvature",
    higher="more curved",
    undefined={"constant"},
    minimum=10,
    status="provisional",
    repeatable=False,
)
def manifold_curvature(neighbors: Around, rows: Rows, *, k: int = 32, dimension: int | None = None, centers: int = 128) -> float:
    r"""How strongly the sheet on which the rows lie bends, as the inverse radius of bending in units of the size of the cloud.

    Around each center the k nearest rows [d] are written in their own principal directions: the first m are the tangent, the others
    normal. Least squares fits every normal coordinate by linear and quadratic terms of the tangent ones (the smallest solution where there
    are more terms than neighbors); the eigenvalues of the fitted Hessians are the principal curvatures. The value is the mean of
    their absolute values over directions, normals and centers, times the root mean square distance of all rows to their mean. A sphere of
    any radius has 1 (its curvature 1/r times its size r), a plane 0.

    Args:
        neighbors: Euclidean distances to the nearest rows.
        rows: the rows [n, d].
        k: rows of a neighborhood.
        dimension: m, the dimension of the sheet; by default the nearest whole number to `mle_dimension` at k.
        centers: most rows around which curvature is read: distinct rows at even quantiles of the distance to the k-th neighbor.

    Returns:
        A curvature without unit, from 0 upward.

    Raises:
        TooFewStimuliError: fewer than 10 or k + 1 distinct rows.
        DegenerateInputError: all rows are equal, or the dimension is below 1.

    Warns:
        InscapeWarning: some rows repeat others; or there are more quadratic terms than neighbors, so that only profiles compare.

    Source:
        Kaufman & Azencot, "Data representations' study of latent image manifolds", ICML 2023: mean absolute principal curvature by
        curvature-aware manifold learning. The paper draws neighbors by perturbing each input; here they are the nearest rows.

    Cost:
        n² d for the neighbors, shared by all measures of neighbors; then centers k² d, and per center a fit of k rows by m(m + 3)/2 terms.
        No interval: it would repeat the fits.

    Bias:
        Too low where m(m + 3)/2 exceeds k, so compare layers of one network and not tables of two papers. Noise across the sheet counts as
        curvature: it grows as neighborhoods shrink.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((2000, 3))
        >>> round(ix.measures.manifold_curvature(7 * X / np.linalg.norm(X, axis=1, keepdims=True), dimension=2), 1)
        1.0
    """
    if dimension is not None and dimension < 1:
        raise DegenerateInputError(f"dimension = {dimension}: a sheet has at least 1 dimension")
    graph, kept = _distinct(neighbors, rows, "manifold_curvature", k)
    logs = (graph.distances[:, k - 1 : k] / graph.distances[:, : k - 1]).log()
    inverse = float(logs.mean())
    estimate = max(1, round(1 / inverse)) if inverse > 1e-12 else k
    m = min(dimension or estimate, k - 1, kept.shape[1])
    if m * (m + 3) > 2 * k:
        warnings.warn(
            f"manifold_curvature: {m} dimensions have {m * (m + 3) // 2} terms for {k} neighbors, so the fit takes the smallest solution; "
            "compare layers, or use a larger k",
            InscapeWarning,
            stacklevel=4,
        )
    chosen = _centers(graph, k, centers)
    total, count = 0.0, 0
    for part in _split(chosen, k, kept.shape[1]):
        near = kept.index_select(0, graph.ids[part, :k].reshape(-1)).view(len(part), k, -1).double()
        with threads(1):  # many small solves: more threads would wait for each other
            bent, directions = _curvatures(near.sub_(kept[part].double().unsqueeze(1)), m)
        total, count = total + bent, count + directions
    return total / count * _size(kept) if count else 0.0


def _size(rows: Float[Tensor, "n d"]) -> float:
    """Root mean square distance of the rows to their mean: from a point near it in their own precision, then exactly to the mean."""
    wide, n = rows.to(compute_dtype(rows.dtype)), rows.shape[0]
    near = wide.mean(0)
    total, drift = 0.0, torch.zeros_like(near, dtype=torch.float64)
    for block in row_blocks(*rows.shape):
        apart = wide[block] - near
        total += float(torch.linalg.vector_norm(apart, dim=1).double().square().sum())
        drift += apart.sum(0).double()
    return max(0.0, total / n - float((drift / n).square().sum())) ** 0.5


def _curvatures(near: Float[Tensor, "c k d"], m: int) -> tuple[float, int]:
    """The sum of absolute principal curvatures of c neighborhoods, given relative to their centers, and how many there are."""
    products = near @ near.mT
    size = products.diagonal(dim1=1, dim2=2).sum(1).sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    values, vectors = torch.linalg.eigh(products / size.square().view(-1, 1, 1))  # curvature of the neighborhood at size 1
    widths = values.clamp(min=0).sqrt().flip(1)
    coordinates = vectors.flip(2) * widths.unsqueeze(1)  # [c, k, k], widest direction first
    tangent, normal = coordinates[:, :, :m], coordinates[:, :, m:]
    real = widths[:, m:] > _FLAT * widths[:, :1]
    hessians = _hessians(tangent, normal, widths[:, :1].unsqueeze(2))
    bent = torch.linalg.eigvalsh(hessians).abs().mean(2) * real / size.unsqueeze(1)
    per_center = real.sum(1)
    mean = torch.where(per_center > 0, bent.sum(1) / per_center.clamp(min=1), 0.0)
    return float(mean.sum()), len(mean)


def _hessians(tangent: Float[Tensor, "c k m"], normal: Float[Tensor, "c k v"], unit: Float[Tensor, "c 1 1"]) -> Float[Tensor, "c v m m"]:
    """Second derivatives of every normal coordinate by least squares, of all solutions the smallest one.

    The terms of a neighbor are its tangent coordinates t and the products $t_i t_j / u$ for $i < j$ and $t_i^2 / 2 u$, with a unit u that
    makes both of one order.
    """
    k, m = tangent.shape[1:]
    if m * (m + 3) >= 2 * k:
        # More terms than neighbors: what is solved needs only the terms' inner products, which follow from those of t.
        dots, squares = tangent @ tangent.mT, tangent.square()
        products = dots + (dots.square() / 2 - squares @ squares.mT / 4) / unit.square()
        weights = _solved(products, normal)
        hessians = (tangent.mT.unsqueeze(1) * weights.mT.unsqueeze(2)) @ tangent.unsqueeze(1) / unit.square().unsqueeze(3)
        hessians.diagonal(dim1=2, dim2=3).div_(2)
        return hessians
    first, second = torch.triu_indices(m, m, device=tangent.device)
    half = torch.where(first == second, 0.5, 1.0)
    terms = torch.cat([tangent, tangent[:, :, first] * tangent[:, :, second] * half / unit], 2)
    entries = _solved(terms.mT @ terms, terms.mT @ normal)[:, m:] / unit
    hessians = entries.new_zeros(*entries.shape[::2], m, m)
    hessians[:, :, first, second] = entries.mT
    hessians[:, :, second, first] = entries.mT
    return hessians


def _solved(products: Float[Tensor, "c a a"], sides: Float[Tensor, "c a v"]) -> Float[Tensor, "c a v"]:
    """The pseudoinverse of matrices of inner products times `sides`; eigenvalues below `_FLOOR` of the largest count as 0."""
    least = _FLOOR * products.diagonal(dim1=1, dim2=2).sum(1)
    # What stays positive definite without this share of its trace has no eigenvalue to leave out, and needs none of them.
    if not bool(torch.linalg.cholesky_ex(products - torch.diag_embed(least.unsqueeze(1).expand(-1, products.shape[1]))).info.any()):
        return torch.cholesky_solve(sides, torch.linalg.cholesky(products))
    weights, vectors = torch.linalg.eigh(products)
    inverse = torch.where(weights > _FLOOR * weights[:, -1:], 1 / weights, 0.0)
    return vectors * inverse.unsqueeze(1) @ (vectors.mT @ sides)


def _distinct(neighbors: Neighbors, rows: Rows, name: str, k: int) -> tuple[Neighbors, Tensor]:
    """The graph of the distinct rows, and these rows."""
    graph = distinct(neighbors, name, k)
    if graph.n == rows.n:
        return graph, rows.rows
    copies = (neighbors.distances[:, 0] == 0) & (neighbors.ids[:, 0] < torch.arange(rows.n, device=neighbors.ids.device))
    return graph, rows.rows[~copies]


def _centers(graph: Neighbors, k: int, most: int) -> Int[Tensor, " c"]:
    """Rows at even quantiles of the distance to the k-th neighbor: the choice does not depend on the order of rows."""
    if most < 1:
        raise DegenerateInputError(f"centers = {most}: at least one row is needed")
    order = graph.distances[:, k - 1].argsort(stable=True)
    places = torch.linspace(0, graph.n - 1, min(most, graph.n), dtype=torch.float64, device=order.device).round().long()
    return order[places]


def _split(chosen: Tensor, k: int, d: int) -> list[Tensor]:
    return list(chosen.split(max(1, _TILE // (8 * k * max(d, k)))))

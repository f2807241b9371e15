"""Where the map of an autoencoder leads when it is run again and again: its attractors, and how points get there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.results import Curve
from inscape.summaries.runner import Runner

_FAR = 1e6  # times the size of the starts: who is further away will not come back


@dataclass(frozen=True, repr=False, eq=False)
class VectorField(Curve):
    """The attractors that a map has from given starts; `value` is their number, `values` the share of starts that each draws.

    Attributes:
        attractors: the points of rest, those that draw most starts first, [attractors, d].
        basin: for each start the number of its attractor, −1 where it came to none, [n].
        radius: spectral radius of the map's Jacobian at each attractor, [attractors]; below 1 it is stable.
        steps: how often the map ran until a start came to rest, [n]; −1 where it did not.
        residual: length of f(z) − z at each start, [n]: of the vector field itself.
        times: the steps at which trajectories are kept: 0, the powers of 2, the last.
        trajectories: the rows at those steps, [times, n, d].
    """

    attractors: Float[Tensor, "a d"]
    basin: Int[Tensor, " n"]
    radius: tuple[float, ...]
    steps: Int[Tensor, " n"]
    residual: Float[Tensor, " n"]
    times: tuple[int, ...]
    trajectories: Float[Tensor, "times n d"]

    def __repr__(self) -> str:
        shares = ", ".join(f"{share:.0%} (radius {radius:.2g})" for share, radius in zip(self.values[:8], self.radius, strict=False))
        rest = f", and {len(self.values) - 8} more" if len(self.values) > 8 else ""
        away = int((self.basin < 0).sum())
        return f"<{self.value:g} attractors from {len(self.basin)} starts: {shares}{rest}; {away} starts come to no rest>"


@measure(
    invariant={"row_order"},
    sensitive=set(),
    range=(0, math.inf),
    source="Fumero et al. 2025",
    higher="more attractors",
    undefined=(),
    minimum=1,
    null="1 for a contraction",
    status="provisional",
)
def latent_vector_field(runner: Runner, *, most: int = 1000, tolerance: float = 1e-6, merge: float = 1e-2) -> VectorField:
    r"""How many attractors the map of an autoencoder has, reached from given latent points by running it again and again.

    The vector field is $V(z) = E(D(z)) - z$ for an encoder E and a decoder D; starts z [n, d] move by $z \leftarrow z + V(z)$ until a step
    is shorter than the tolerance times the larger of $\lVert z \rVert$ and the size of the starts (their root mean square about the mean).
    Ends closer than `merge` times that size are one attractor.

    Args:
        runner: starts [n, d] and a map of rows [b, d] to rows [b, d]: `latent_vector_field(Z, lambda z: encode(decode(z)))`.
        most: steps after which a start counts as not at rest.
        tolerance: relative length of a step at rest.
        merge: how far ends of one attractor may lie apart.

    Returns:
        A `VectorField`: a curve of the share of starts by attractor with `attractors`, `basin`, `radius`, `steps` and `trajectories`; its
        `value` is the number of attractors, 0 where nothing comes to rest.

    Raises:
        DegenerateInputError: the map fails, changes the shape or gives NaN for the first start; or an option is not positive.
        TooFewStimuliError: no start.

    Source:
        Fumero, Moschella, Rodolà & Locatello, "Navigating the latent space dynamics of neural models", 2025.

    Cost:
        Up to `most` runs of the map on n rows; for each attractor a Jacobian of d rows.

    Bias:
        Too low: attractors that no start leads to are not found, and slow points count as not at rest. Too high where a contraction is so
        weak that ends stop short of each other; see `radius`, near 1 then.

    Example:
        >>> import numpy as np, inscape as ix
        >>> starts = np.array([[-2.0], [-0.1], [0.3], [5]])
        >>> ix.measures.latent_vector_field(starts, lambda z: (2 * z).tanh()).value
        2.0
    """
    if most < 1 or not (tolerance > 0 and merge > 0):
        raise DegenerateInputError(f"most={most}, tolerance={tolerance}, merge={merge} must all be positive")
    ends, steps, residual, times, trajectories = _run(runner, most, tolerance)
    rest = torch.nonzero(steps >= 0).squeeze(1)
    groups = _groups(ends[rest].double(), merge * runner.size)
    counts = np.bincount(groups) if len(groups) else np.zeros(0, dtype=int)
    order = np.argsort(-counts, kind="stable")
    basin = torch.full((runner.n,), -1)
    basin[rest] = torch.from_numpy(np.argsort(order)[groups]).to(basin) if len(groups) else basin[rest]
    # The end that a start reached with the last step is a better point of rest than a mean of ends.
    found = torch.stack([ends[basin == k][-1] for k in range(len(order))]) if len(order) else ends[:0]
    return VectorField(
        float(len(order)),
        axis="attractor",
        at=range(len(order)),
        values=(counts[order] / runner.n).tolist(),
        attractors=found,
        basin=basin,
        radius=tuple(runner.radius(z) for z in found),
        steps=steps,
        residual=residual,
        times=times,
        trajectories=trajectories,
    )


def _run(runner: Runner, most: int, tolerance: float) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...], Tensor]:
    """Runs the map until every start is at rest, gone, or out of steps."""
    Z = runner.starts.clone()
    size = runner.size
    far = _FAR * max(size, float(Z.double().norm(dim=1).max()))
    steps = torch.full((runner.n,), -1)
    moving = torch.arange(runner.n)
    residual = torch.zeros(runner.n, dtype=torch.float64)
    times, kept = [0], [Z.clone()]
    done = 0
    while len(moving) and done < most:
        done += 1
        before = Z[moving]
        image = runner.step(before)
        length = (image - before).double().norm(dim=1)
        if done == 1:
            residual = torch.where(torch.isfinite(length), length, math.inf)
        gone = ~torch.isfinite(length) | (image.double().norm(dim=1) > far)
        Z[moving] = torch.where(gone[:, None], before, image)
        still = ~gone & (length <= tolerance * image.double().norm(dim=1).clamp(min=size))
        steps[moving[still]] = done
        moving = moving[~still & ~gone]
        if done & (done - 1) == 0:
            times.append(done)
            kept.append(Z.clone())
    if times[-1] != done:
        times.append(done)
        kept.append(Z.clone())
    return Z, steps, residual, tuple(times), torch.stack(kept)


def _groups(ends: Tensor, apart: float) -> np.ndarray:
    """The number of the cluster of each end: ends that a chain of neighbors joins are one, numbered by first appearance."""
    if not len(ends):
        return np.zeros(0, dtype=np.int64)
    near = torch.nonzero(torch.cdist(ends, ends) <= apart).cpu().numpy()
    graph = coo_matrix((np.ones(len(near)), (near[:, 0], near[:, 1])), shape=(len(ends), len(ends)))
    return connected_components(graph, directed=False)[1]

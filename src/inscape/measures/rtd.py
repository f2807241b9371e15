"""How differently two representations of the same stimuli are connected: the bars of one that the other closes too early."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from inscape.errors import DegenerateInputError, require
from inscape.measures.base import measure
from inscape.results import Curve
from inscape.summaries import RDM
from inscape.summaries.base import Need

Distances = Annotated[RDM, Need(metric="euclidean")]


@measure(
    invariant={"translation", "rotation", "scale"},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Barannikov et al. 2022",
    higher="more different",
    symmetric=True,
    minimum=4,
    null="grows with the size of a batch: compare at equal ones",
    status="provisional",
    repeatable=False,
)
def rtd(x: Distances, y: Distances, *, batch: int = 100, batches: int = 3, seed: int = 0) -> Curve:
    r"""How much of the shape of one representation, stimulus by stimulus, is missing in the other; 0 for equal ones.

    Distances of each side are divided by their .9 quantile. The matrix $\begin{pmatrix} 0 & D_x \\ D_x & \min(D_x, D_y) \end{pmatrix}$
    over two copies of the stimuli joins a pair when either side does, and is filled where x does: a loop in it is a connection that y makes
    and x makes only at a larger scale. The value is the sum of the lengths of all loops (R-cross-barcode, dimension 1), the mean over both
    directions and over batches of stimuli. Paired rows [n, d]. Needs the extra `topology`.

    Args:
        x: distances in the first system.
        y: distances in the second system.
        batch: most stimuli at a time.
        batches: how many batches are drawn where there are more stimuli.
        seed: of the batches.

    Returns:
        A `Curve` over batches; its value is the mean.

    Raises:
        DegenerateInputError: nine in ten distances of a side are 0, or no batch is asked for.
        TooFewStimuliError: fewer than 4 rows.
        MissingExtraError: the package gudhi is not installed.

    Source:
        Barannikov, Trofimov, Balabin & Burnaev, "Representation topology divergence: a method for comparing neural network
        representations", ICML 2022, with the normalization of their code.

    Cost:
        n² d for the distances, and the loops of 2 × batch points in each direction: about a second for a batch of 100.

    Bias:
        Grows with the batch; noise alone makes loops, so read it beside that of two halves of one system. With more rows than a batch
        holds, the order of rows decides which are drawn.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((20, 3))
        >>> round(float(ix.measures.rtd(X, 5 * X + 1)), 6)
        0.0
    """
    require("gudhi", "topology", "rtd")
    require("sklearn", "topology", "rtd")
    if batch < 4 or batches < 1:
        raise DegenerateInputError(f"batch={batch}, batches={batches}: at least one batch of at least 4 stimuli is needed")
    first, second = (rdm.square().cpu().numpy() for rdm in (x, y))
    rng, n = np.random.default_rng(seed), len(first)
    values: list[float] = []
    for _ in range(batches if n > batch else 1):
        rows = np.sort(rng.permutation(n)[:batch]) if n > batch else np.arange(n)
        a, b = (_scaled(one[np.ix_(rows, rows)], side) for one, side in ((first, "x"), (second, "y")))
        values.append((cross_bars(a, b) + cross_bars(b, a)) / 2)
    return Curve(float(np.mean(values)), axis="batch", at=range(len(values)), values=values)


def cross_bars(a: np.ndarray, b: np.ndarray) -> float:
    """The total length of the loops that b closes before a does, for distances [n, n]."""
    from gudhi.sklearn.rips_persistence import RipsPersistence

    n = len(a)
    joined = np.zeros((2 * n, 2 * n))
    joined[n:, :n], joined[:n, n:], joined[n:, n:] = a, a.T, np.minimum(a, b)
    bars = np.asarray(RipsPersistence(1, input_type="full distance matrix").fit_transform([joined])[0])
    return float((bars[:, 1] - bars[:, 0]).sum()) if len(bars) else 0.0


def _scaled(distances: np.ndarray, side: str) -> np.ndarray:
    unit = float(np.quantile(distances, 0.9))
    if unit == 0:
        raise DegenerateInputError(f"at least nine in ten distances between the {len(distances)} rows of {side} are 0; there is no scale")
    return distances / unit

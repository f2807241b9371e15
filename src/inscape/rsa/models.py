"""Models with something to fit: a weighted sum of matrices, a point on a path through them, or the best of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inscape.errors import DegenerateInputError
from inscape.rsa.rdms import RDMs

SWEEPS = 200


@dataclass(frozen=True)
class FlexibleModel:
    """A family of dissimilarity matrices from which inference picks one in each training fold.

    Attributes:
        components: the matrices that it is made of.
        kind: "weighted", "interpolated" or "selected".
        name: what rows call it.
    """

    components: RDMs
    kind: str
    name: str

    def __post_init__(self) -> None:
        if not self.components.complete:
            raise DegenerateInputError(f"the components of the model {self.name!r} have missing pairs; a fit needs complete matrices")
        if self.kind == "interpolated" and len(self.components) < 2:
            raise DegenerateInputError(f"the model {self.name!r} runs along {len(self.components)} matrix; a path needs 2")


def weighted(components: RDMs, name: str = "weighted") -> FlexibleModel:
    """A sum of matrices with weights of at least 0, fitted by non-negative least squares to the pooled training subjects.

    Example:
        >>> import numpy as np
        >>> from inscape.rsa import RDMs, weighted
        >>> weighted(RDMs(np.eye(3)), name="mix").kind
        'weighted'
    """
    return FlexibleModel(components, "weighted", name)


def interpolated(components: RDMs, name: str = "interpolated") -> FlexibleModel:
    """A point on the path that leads in straight lines from each matrix to the next, such as one parameter over its range."""
    return FlexibleModel(components, "interpolated", name)


def selected(components: RDMs, name: str = "selected") -> FlexibleModel:
    """One of the matrices: the one that fits the training subjects best."""
    return FlexibleModel(components, "selected", name)


def fit(kind: str, G: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Weights of the components [batch, c] that maximize w·b / √(w'Gw), within what the kind allows.

    Args:
        kind: "weighted", "interpolated" or "selected".
        G: inner products of the components [batch, c, c].
        b: their inner products with the target [batch, c].

    Returns:
        Weights that sum to 1; all equal where no component is similar to the target.
    """
    size = np.sqrt(np.maximum(np.einsum("bii->bi", G), 1e-300))
    cosines, target = G / size[:, :, None] / size[:, None, :], b / size
    if kind == "selected":
        return np.eye(b.shape[1])[target.argmax(1)]
    if kind == "weighted":
        found = _non_negative(cosines, target)
        found = np.where(found.sum(1, keepdims=True) > 0, found, 1.0) / size
    else:
        found = _along(G, b)
    return found / found.sum(1, keepdims=True)


def _non_negative(G: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Argmin over w ≥ 0 of w'Gw − 2 w·b: coordinates in turn, then the equations of those that stay positive, solved exactly."""
    w = np.maximum(b, 0)
    for _ in range(SWEEPS):
        before = w.copy()
        for j in range(b.shape[1]):
            w[:, j] = np.maximum(0, w[:, j] + b[:, j] - np.einsum("bc,bc->b", G[:, j], w))
        if np.abs(w - before).max() < 1e-12:
            break
    active = w > 1e-9
    system = np.where(active[:, :, None] & active[:, None, :], G, 0.0) + np.eye(b.shape[1]) * ~active[:, None, :]
    system = system + 1e-13 * np.eye(b.shape[1])
    exact = np.linalg.solve(system, np.where(active, b, 0.0)[..., None])[..., 0]
    return np.where((exact >= 0).all(1, keepdims=True), np.where(active, exact, 0.0), w)


def _along(G: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The best point on the segments between neighbors; on each, where the derivative of the cosine is 0, or an end."""
    batch, c = b.shape
    best, value = np.full((batch, c), 1.0 / c), np.full(batch, -np.inf)
    for j in range(c - 1):
        uu, vv, uv = G[:, j, j], G[:, j + 1, j + 1], G[:, j, j + 1]
        ut, vt = b[:, j], b[:, j + 1]
        # w = (1 − a) u + a v; the cosine with t is largest where (v·t) (u·w) = (u·t) (v·w).
        numerator, denominator = vt * uu - ut * uv, vt * (uu - uv) + ut * (vv - uv)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = np.nan_to_num(numerator / denominator, nan=0.0, posinf=0.0, neginf=0.0)
        for a in (np.zeros(batch), np.ones(batch), np.clip(inside, 0, 1)):
            length = (1 - a) ** 2 * uu + 2 * a * (1 - a) * uv + a**2 * vv
            cosine = ((1 - a) * ut + a * vt) / np.sqrt(np.maximum(length, 1e-300))
            better = cosine > value
            value = np.where(better, cosine, value)
            point = np.zeros((batch, c))
            point[:, j], point[:, j + 1] = 1 - a, a
            best = np.where(better[:, None], point, best)
    return best

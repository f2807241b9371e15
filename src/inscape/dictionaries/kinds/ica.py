"""Independent components, as a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from inscape.dictionaries.base import Tensors, check_positive, dictionary_kind
from inscape.dictionaries.closed import Closed, moments_of
from inscape.dictionaries.codes import Codes
from inscape.errors import DegenerateInputError, DictionaryError
from inscape.store import View

# Rows on which the rotation is found; more of them change it little.
_ROWS = 200_000


@dictionary_kind(
    "ICA",
    example=lambda d: {"width": d // 2},
    source="Hyvärinen 1999, Fast and robust fixed-point algorithms for independent component analysis",
)
@dataclass(frozen=True, repr=False)
class ICA(Closed):
    """Directions along which the rows are as far from Gaussian as they can be, uncorrelated; codes are signed and dense.

    Symmetric FastICA with g = tanh on the first `width` principal components, whitened. Codes have variance 1; W_dec is what they write.

    Attributes:
        width: number of components, at most the number of units.
        iterations: of the fixed-point rule, at most.
        tolerance: change of the directions (1 − |cosine|) at which it ends.

    Example:
        >>> ix.decompose(X, ix.dictionaries.ICA(width=4)).encode(X).shape
        (64, 4)
    """

    iterations: int = 200
    tolerance: float = 1e-5
    signed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.kind, iterations=self.iterations, tolerance=self.tolerance)

    def select(self, t: Tensors, activations: Tensor) -> Codes:
        """All of them."""
        return Codes.of(activations)

    def fit(self, view: View, seed: int) -> tuple[Tensors, dict[str, Any]]:
        """Whitening from the moments of all rows, the rotation from at most 200 000 of them."""
        if self.width > view.d:
            raise DictionaryError(f"ICA: width={self.width} is more than the {view.d} units of {view.system}/{view.site}")
        moments = moments_of(view)
        values, vectors = (part.flip(-1)[..., : self.width] for part in torch.linalg.eigh(moments.covariance()))
        if float(values[-1]) <= 1e-12 * float(values[0]):
            raise DegenerateInputError(
                f"the rows of {view.system}/{view.site} have fewer than {self.width} directions with variance; give a smaller width"
            )
        whitener, back = vectors / values.sqrt(), (vectors * values.sqrt()).T
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(view.n, min(view.n, _ROWS), replace=False))
        x = ((view.gather(rows).double() - moments.mean) @ whitener).float()
        turn = _symmetric(torch.from_numpy(rng.standard_normal((self.width, self.width))))
        change, count = float("inf"), 0
        while count < self.iterations and change >= self.tolerance:
            count += 1
            y = torch.tanh(x @ turn.float().T)
            new = _symmetric((y.T @ x / len(x)).double() - (1 - y.square()).mean(0).double()[:, None] * turn)
            change = float((1 - torch.linalg.vecdot(new, turn).abs()).max())
            turn = new
        decoder = turn @ back
        signs = decoder.gather(1, decoder.abs().argmax(1, keepdim=True)).sign()
        W_enc = whitener @ (turn * signs).T
        b = torch.zeros(self.width)
        tensors = {"W_enc": W_enc.float(), "W_dec": (decoder * signs).float(), "b_enc": b, "b_dec": moments.mean.float()}
        return tensors, {"rows": len(rows), "iterations": count, "converged": change < self.tolerance}


def _symmetric(W: Tensor) -> Tensor:
    """(W Wᵀ)^(−1/2) W: the nearest rows that are orthonormal."""
    U, _, V = torch.linalg.svd(W, full_matrices=False)
    return U @ V

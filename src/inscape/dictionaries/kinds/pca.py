"""Principal components, as a baseline that every dictionary should beat at equal numbers of active features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from inscape.dictionaries.base import Tensors, dictionary_kind
from inscape.dictionaries.closed import Closed, moments_of
from inscape.dictionaries.codes import Codes
from inscape.errors import DictionaryError
from inscape.store import View


@dictionary_kind("PCA", example=lambda d: {"width": d // 2}, source="Pearson 1901; Hotelling 1933")
@dataclass(frozen=True, repr=False)
class PCA(Closed):
    """The orthogonal directions of largest variance; codes are signed and dense.

    W_dec = W_encᵀ are the first `width` eigenvectors of the covariance, each with its largest entry positive.

    Attributes:
        width: number of components, at most the number of units.

    Example:
        >>> ix.decompose(X, ix.dictionaries.PCA(width=4)).W_dec.shape
        torch.Size([4, 8])
    """

    signed: ClassVar[bool] = True

    def select(self, t: Tensors, activations: Tensor) -> Codes:
        """All of them."""
        return Codes.of(activations)

    def fit(self, view: View, seed: int) -> tuple[Tensors, dict[str, Any]]:
        """From the moments of all rows; one pass."""
        if self.width > view.d:
            raise DictionaryError(f"PCA: width={self.width} is more than the {view.d} units of {view.system}/{view.site}")
        moments = moments_of(view)
        vectors = torch.linalg.eigh(moments.covariance())[1].flip(1)[:, : self.width].T
        signs = vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()
        W = (vectors * signs).float()
        tensors = {"W_enc": W.T, "W_dec": W, "b_enc": torch.zeros(self.width), "b_dec": moments.mean.float()}
        return tensors, {"rows": view.n}

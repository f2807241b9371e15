"""How far a sequence is from one repeated vector."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from inscape.capturing.reducers.base import reducer


@reducer(range=(0.0, 1.0), source="Dong et al. 2021, Attention is not all you need, eq. 2 (Frobenius norm)")
def rank_collapse(x: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b 1"]:
    r"""The residual \(\|X - 1\bar{x}^\top\|_F / \|X\|_F\): 0 when all tokens are one vector, 1 when their mean is zero.

    A sequence of zeros is one repeated vector: 0.
    """
    mean = x.sum(1) / mask.sum(1, keepdim=True)
    centered = (x - mean[:, None]).masked_fill(~mask[..., None], 0.0)
    whole = x.norm(dim=(1, 2))
    return (centered.norm(dim=(1, 2)) / torch.where(whole == 0, 1.0, whole))[:, None]

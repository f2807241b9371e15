"""How much each head attends as the other heads do."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from inscape.capturing.reducers.base import reducer


@reducer(attention=True, range=(0.0, 1.0), source="Li et al. 2018, Multi-head attention with disagreement regularization (with cosines)")
def head_overlap(pattern: Float[Tensor, "b h q k"], queries: Bool[Tensor, "b q"], keys: Bool[Tensor, "b k"]) -> Float[Tensor, "b h"]:
    r"""The cosine of a head's weights with those of each other head, averaged over heads and queries.

    \(\frac{1}{n (H-1)} \sum_i \sum_{g \ne h} \cos(a^h_i, a^g_i)\), by head h; 1 for a single head. A query without any weight counts 0.
    """
    heads = pattern.shape[1]
    length = pattern.norm(dim=-1, keepdim=True)
    units = pattern / torch.where(length == 0, 1.0, length)
    if heads == 1:
        return torch.ones_like(pattern[:, :, 0, 0])
    # The sum over all heads holds the head itself, whose cosine with itself is 1 (0 for a query without weight).
    products = (units * units.sum(1, keepdim=True)).sum(-1) - (length[..., 0] > 0).to(units.dtype)
    return (products.sum(-1) / (queries.sum(1)[:, None] * (heads - 1))).clamp(0.0, 1.0)

"""How alike the tokens of one sequence point."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from inscape.capturing.reducers.base import reducer


@reducer(minimum=2, range=(-1.0, 1.0), source="Dong et al. 2021; Ethayarajh 2019 (intra-sentence similarity)")
def token_cosine(x: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b 1"]:
    r"""The mean cosine over all pairs of different tokens of a sequence: \((\|\sum_i u_i\|^2 - \sum_i \|u_i\|^2)/(t(t-1))\).

    From the sum of the unit vectors u, so no pair is formed. A zero vector has cosine 0 with every other. Needs two tokens.
    """
    length = x.norm(dim=-1, keepdim=True)
    units = (x / torch.where(length == 0, 1.0, length)).double()  # the difference below cancels when tokens are few
    total = units.sum(1).square().sum(-1)
    t = mask.sum(1).double()
    return ((total - units.square().sum((1, 2))) / (t * (t - 1)))[:, None].to(x.dtype)

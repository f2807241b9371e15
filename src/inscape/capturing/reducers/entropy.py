"""How widely each head spreads its attention."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from inscape.capturing.reducers.base import reducer


@reducer(attention=True, source="Ghader and Monz 2017; Vig and Belinkov 2019, section 4.3")
def entropy(pattern: Float[Tensor, "b h q k"], queries: Bool[Tensor, "b q"], keys: Bool[Tensor, "b k"]) -> Float[Tensor, "b h"]:
    r"""The entropy of each query's weights, averaged over the queries: \(\frac{1}{n} \sum_i -\sum_j a_{ij} \ln a_{ij}\), by head.

    In nats and not normalized: a query that may see m keys reaches \(\ln m\) (a causal one at place i: \(\ln(i + 1)\)), and 0 when it
    looks at one key. Weights are divided by their sum over the real keys first, which changes them only where an attention sink that
    is no key takes a part; a query without any weight counts 0.
    """
    total = pattern.sum(-1, keepdim=True)
    weights = pattern / torch.where(total == 0, 1.0, total)
    return torch.special.entr(weights).sum((-2, -1)) / queries.sum(1)[:, None]

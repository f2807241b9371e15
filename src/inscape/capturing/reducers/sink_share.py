"""How much of its attention each head rests on the first token."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from inscape.capturing.reducers.base import reducer


@reducer(attention=True, range=(0.0, 1.0), source="Xiao et al. 2024; Gu et al. 2025, When Attention Sink Emerges in Language Models, eq. 3")
def sink_share(pattern: Float[Tensor, "b h q k"], queries: Bool[Tensor, "b q"], keys: Bool[Tensor, "b k"]) -> Float[Tensor, "b h"]:
    r"""The weight of the first token, averaged over the queries: \(\frac{1}{n} \sum_i a_{i0}\), by head.

    All queries count, the first one too, which under a causal mask sees nothing else. The first token is the first real one, special or
    not; a sink that is no token is left out of the pattern and so of this share.
    """
    first = keys.int().argmax(1)
    return pattern.take_along_dim(first[:, None, None, None], 3).sum((-2, -1)) / queries.sum(1)[:, None]

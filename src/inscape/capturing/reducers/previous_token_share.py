"""How much of its attention each head gives to the token before."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from inscape.capturing.reducers.base import reducer


@reducer(attention=True, square=True, minimum=2, range=(0.0, 1.0), source="Clark et al. 2019; Voita et al. 2019")
def previous_token_share(
    pattern: Float[Tensor, "b h q k"], queries: Bool[Tensor, "b q"], keys: Bool[Tensor, "b k"]
) -> Float[Tensor, "b h"]:
    r"""The weight of the token before the query's own, averaged over the queries that have one: \(\frac{1}{n} \sum_{i \ge 1} a_{i,i-1}\).

    By head. Needs two tokens.
    """
    has_one = queries.clone()
    has_one[:, 0] = False
    has_one[:, 1:] &= keys[:, :-1]
    before = pattern.diagonal(-1, -2, -1) * has_one[:, None, 1:]
    return before.sum(-1) / has_one.sum(1)[:, None]

"""How far each head looks."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from inscape.capturing.reducers.base import reducer


@reducer(attention=True, square=True, source="Vig and Belinkov 2019, section 4.3; Dosovitskiy et al. 2021, appendix D.7")
def distance(pattern: Float[Tensor, "b h q k"], queries: Bool[Tensor, "b q"], keys: Bool[Tensor, "b k"]) -> Float[Tensor, "b h"]:
    r"""The mean distance in tokens: \(\frac{1}{n} \sum_i \sum_j a_{ij} |i - j|\), by head; 0 when every query looks at itself.

    Places count the tokens as the model reads them, so for an image it is the distance in the sequence of patches, not in the picture.
    """
    q, k = (torch.arange(size, device=pattern.device, dtype=pattern.dtype) for size in pattern.shape[-2:])
    return torch.einsum("bhqk,qk->bh", pattern, (q[:, None] - k).abs()) / queries.sum(1)[:, None]

"""The largest activation of a sequence."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from inscape.capturing.reducers.base import reducer


@reducer(source="Sun et al. 2024, Massive Activations in Large Language Models")
def massive(x: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b 1"]:
    r"""The largest magnitude \(\max_{i,j} |x_{ij}|\) over the tokens and units of a sequence."""
    return x.abs().amax((1, 2))[:, None]

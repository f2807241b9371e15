"""Adding a vector: steering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inscape.edits.base import Edit, check_width, edit_kind, like, numbers
from inscape.errors import EditError
from inscape.models.sites import Site


@edit_kind("add", example=lambda d: {"vector": torch.linspace(-1, 1, d), "scale": 2.0}, neutral=lambda d: {"vector": torch.zeros(d)})
@dataclass(frozen=True, eq=False, repr=False)
class Add(Edit):
    """Adds `scale` times a vector to the activations.

    Attributes:
        vector: `[d]`, or `[b, 1, d]` for another one in each row of the batch.
        scale: factor, in the vector's own unit.

    Example:
        >>> with ix.edit(model, "blocks.6.resid_post", ix.edits.add(direction, scale=4)):
        ...     model.generate("The film was")
    """

    vector: Any
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "vector", numbers(self.vector, "vector"))
        if self.vector.ndim == 0:
            raise EditError("vector must have one entry per unit, got a single number; use replace or scale for numbers")

    def check(self, site: Site, width: int | None) -> None:
        """The vector must have as many entries as the site has units."""
        check_width(self.vector.shape[-1], width, site, f"the vector of add (shape {tuple(self.vector.shape)})")

    def change(self, x: Tensor, offset: int) -> Tensor:
        """`x + scale * vector`."""
        return x + like(self.vector * self.scale if self.scale != 1.0 else self.vector, x)

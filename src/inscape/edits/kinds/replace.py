"""Putting a constant in the place of the activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inscape.edits.base import Edit, check_width, edit_kind, like, numbers
from inscape.models.sites import Site


@edit_kind(
    "replace",
    example=lambda d: {"value": torch.linspace(-1, 1, d)},
    neutral=lambda d: {"value": 0.0, "tokens": torch.zeros(1, dtype=torch.bool)},
)
@dataclass(frozen=True, eq=False, repr=False)
class Replace(Edit):
    """Replaces the activations by a fixed value.

    Attributes:
        value: a number, a vector `[d]`, or anything that broadcasts to `[b, t, d]`.

    Example:
        >>> ix.edits.replace(mean_activation, tokens="last")
    """

    value: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", numbers(self.value, "value"))

    def check(self, site: Site, width: int | None) -> None:
        """A vector must have as many entries as the site has units."""
        if self.value.ndim:
            check_width(self.value.shape[-1], width, site, f"the value of replace (shape {tuple(self.value.shape)})")

    def change(self, x: Tensor, offset: int) -> Tensor:
        """The value, everywhere."""
        return like(self.value, x).expand_as(x)

"""Holding one unit or one direction at a value, or within limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inscape.edits.base import Edit, check_units, check_width, edit_kind, like, numbers
from inscape.errors import EditError
from inscape.models.sites import Site


@edit_kind("clamp", example=lambda d: {"unit": 0, "value": 3.0}, neutral=lambda d: {"unit": 0, "min": -1e30, "max": 1e30})
@dataclass(frozen=True, eq=False, repr=False)
class Clamp(Edit):
    """Holds a unit, or the coordinate along a direction, at a value or within limits; the rest stays.

    Attributes:
        unit: number of the unit.
        direction: `[d]`, instead of a unit; its length does not matter, the coordinate is along the unit vector.
        value: sets the coordinate.
        min: lower limit, instead of a value.
        max: upper limit, instead of a value.

    Example:
        >>> ix.edits.clamp(direction=v, max=0.0)
    """

    unit: int | None = None
    direction: Any = None
    value: float | None = None
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.unit is None) == (self.direction is None):
            raise EditError("clamp takes either a unit or a direction, and exactly one of them")
        if (self.value is None) == (self.min is None and self.max is None):
            raise EditError("clamp takes either a value or limits (min, max), not both and not neither")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise EditError(f"clamp: min={self.min} is above max={self.max}")
        if self.direction is not None:
            direction = numbers(self.direction, "direction")
            if direction.ndim != 1 or float(direction.detach().norm()) == 0:
                raise EditError(f"clamp takes one direction [d] that is not zero, got shape {tuple(direction.shape)}")
            object.__setattr__(self, "direction", direction)

    def check(self, site: Site, width: int | None) -> None:
        """The unit must exist, or the direction have as many entries as the site has units."""
        if self.direction is not None:
            check_width(self.direction.shape[-1], width, site, f"the direction of clamp (shape {tuple(self.direction.shape)})")
        check_units(None if self.unit is None else [self.unit], width, site)

    def _held(self, coordinate: Tensor) -> Tensor:
        if self.value is not None:
            return torch.full_like(coordinate, self.value)
        return coordinate.clamp(self.min, self.max)

    def change(self, x: Tensor, offset: int) -> Tensor:
        """`x` with its coordinate moved to the held value."""
        if self.direction is None:
            new = x.clone()
            new[..., self.unit] = self._held(x[..., self.unit])
            return new
        axis = like(self.direction.double() / self.direction.double().norm(), x)
        coordinate = x @ axis
        return x + (self._held(coordinate) - coordinate)[..., None] * axis

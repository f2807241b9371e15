"""Multiplying the activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from inscape.edits.base import Edit, check_units, edit_kind, numbers
from inscape.models.sites import Site


@edit_kind("scale", example=lambda d: {"factor": 0.5}, neutral=lambda d: {"factor": 1.0})
@dataclass(frozen=True, eq=False, repr=False)
class Scale(Edit):
    """Multiplies the activations, or only some units of them, by a factor.

    Attributes:
        factor: the factor; 0 removes, 1 changes nothing.
        units: which units; all when left out.

    Example:
        >>> ix.edits.scale(0.5, units=[3, 17])
    """

    factor: float
    units: Sequence[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "factor", float(numbers(self.factor, "factor")))
        object.__setattr__(self, "units", None if self.units is None else tuple(int(unit) for unit in self.units))

    def check(self, site: Site, width: int | None) -> None:
        """The units must exist."""
        check_units(self.units, width, site)

    def change(self, x: Tensor, offset: int) -> Tensor:
        """`x * factor`."""
        if self.units is None:
            return x * self.factor
        new = x.clone()
        new[..., list(self.units)] *= self.factor
        return new

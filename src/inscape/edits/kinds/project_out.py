"""Removing directions from the activations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inscape.edits.base import Edit, check_width, edit_kind, like, numbers
from inscape.errors import EditError
from inscape.models.sites import Site


@edit_kind("project_out", example=lambda d: {"basis": torch.linspace(-1, 1, d)}, neutral=lambda d: {"basis": torch.zeros(0, d)})
@dataclass(frozen=True, eq=False, repr=False)
class ProjectOut(Edit):
    """Removes the part of the activations that lies in the span of given directions.

    Attributes:
        basis: one direction `[d]`, or several `[k, d]`; they need not be orthogonal or of unit length.

    Example:
        >>> ix.edits.project_out(probe.direction)
    """

    basis: Any
    _frame: Tensor = field(init=False, repr=False, compare=False, default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        super().__post_init__()
        basis = numbers(self.basis, "basis")
        if basis.ndim not in (1, 2):
            raise EditError(f"project_out takes a direction [d] or a basis [k, d], got shape {tuple(basis.shape)}")
        object.__setattr__(self, "basis", basis)
        rows = basis.detach().double().reshape(-1, basis.shape[-1])
        norms = rows.norm(dim=1, keepdim=True)
        if bool((norms == 0).any()):
            raise EditError(f"project_out: direction {int((norms == 0).nonzero()[0, 0])} of the basis (shape {tuple(basis.shape)}) is zero")
        _, s, vh = torch.linalg.svd(rows / norms, full_matrices=False)
        # Directions that repeat others span nothing new; rounding must not turn them into random ones.
        object.__setattr__(self, "_frame", vh[s > 1e-6 * max(1.0, float(s.max()))] if len(s) else vh)

    def check(self, site: Site, width: int | None) -> None:
        """Directions must have as many entries as the site has units."""
        check_width(self.basis.shape[-1], width, site, f"the basis of project_out (shape {tuple(self.basis.shape)})")

    def change(self, x: Tensor, offset: int) -> Tensor:
        """`x − (x Bᵀ) B` with B an orthonormal basis of the span."""
        frame = like(self._frame, x)
        return x - (x @ frame.T) @ frame

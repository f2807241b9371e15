"""Activations of another run in the place of this one's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inscape.edits.base import Edit, check_width, edit_kind, like, numbers
from inscape.errors import EditError
from inscape.models.sites import Site


@edit_kind(
    "patch", example=lambda d: {"values": torch.linspace(-1, 1, 6 * d).reshape(1, 6, d)}, neutral=lambda d: {"values": torch.zeros(1, 0, d)}
)
@dataclass(frozen=True, eq=False, repr=False)
class Patch(Edit):
    """Replaces activations by those of another run at the same site.

    Attributes:
        values: `[b, t, d]` (one row serves the whole batch) or `[b, d]`, for the columns of the sequence from 0 on; columns beyond
            `t`, such as newly generated tokens, are left alone. Choose some positions with `tokens`.

    Example:
        >>> ix.edits.patch(clean_activations, tokens=[3])
    """

    values: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        values = numbers(self.values, "values")
        if values.ndim not in (2, 3):
            raise EditError(f"patch takes values [b, t, d] or [b, d], got shape {tuple(values.shape)}")
        object.__setattr__(self, "values", values)

    def check(self, site: Site, width: int | None) -> None:
        """The values must have as many entries as the site has units."""
        check_width(self.values.shape[-1], width, site, f"the values of patch (shape {tuple(self.values.shape)})")

    def change(self, x: Tensor, offset: int) -> Tensor:
        """The values where there are any, `x` elsewhere."""
        values = like(self.values, x)
        if values.ndim != x.ndim or values.shape[0] not in (1, x.shape[0]) or values.shape[-1] != x.shape[-1]:
            raise EditError(
                f"patch: values have shape {tuple(values.shape)}, but the activations have {tuple(x.shape)}; "
                "both runs must have the same batch"
            )
        if x.ndim == 2:
            return values.expand_as(x)
        t = x.shape[1]
        if offset == 0 and t < values.shape[1]:
            raise EditError(
                f"patch: values cover {values.shape[1]} positions, but this run has {t}; select the positions that both runs share"
            )
        part = values[:, offset : offset + t].expand(x.shape[0], -1, -1)
        return torch.cat([part, x[:, part.shape[1] :]], 1)

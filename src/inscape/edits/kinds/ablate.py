"""Taking units, heads or a whole site out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from inscape.edits.base import Edit, check_units, check_width, edit_kind, like, numbers
from inscape.errors import EditError
from inscape.models.hooks import Moment
from inscape.models.sites import Site


@edit_kind("ablate", example=lambda d: {"units": (0,)}, neutral=lambda d: {"units": ()})
@dataclass(frozen=True, eq=False, repr=False)
class Ablate(Edit):
    """Sets units to zero, or to their mean.

    Attributes:
        mode: "zero" or "mean".
        mean: `[d]`, the mean activations; needed for "mean".
        units: which units; all when neither units nor heads are given.
        heads: which attention heads, at a site that is made of heads (`q`, `k`, `v`, `z`).

    Example:
        >>> with ix.edit(model, "blocks.2.z", ix.edits.ablate(heads=[1])):
        ...     logits = model.run(batch).logits
    """

    mode: Literal["zero", "mean"] = "zero"
    mean: Any = None
    units: Sequence[int] | None = None
    heads: Sequence[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("zero", "mean"):
            raise EditError(f"ablate: mode={self.mode!r} is not known; give 'zero' or 'mean'")
        if (self.mode == "mean") != (self.mean is not None):
            raise EditError("ablate: mode='mean' needs mean=[d], and only that mode takes it")
        if self.units is not None and self.heads is not None:
            raise EditError("ablate takes units or heads, not both")
        for name in ("units", "heads"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(int(i) for i in value))
        if self.mean is not None:
            object.__setattr__(self, "mean", numbers(self.mean, "mean"))

    def check(self, site: Site, width: int | None) -> None:
        """Units and heads must exist, and the mean have as many entries as the site has units."""
        check_units(self.units, width, site)
        if self.mean is not None:
            check_width(self.mean.shape[-1], width, site, f"the mean of ablate (shape {tuple(self.mean.shape)})")
        if self.heads is not None:
            if site.heads is None:
                raise EditError(f"site {site.name!r} is not made of attention heads; use units=, or a site such as blocks.0.z")
            bad = [head for head in self.heads if not -site.heads <= head < site.heads]
            if bad:
                raise EditError(f"site {site.name!r} has {site.heads} heads (0 to {site.heads - 1}); there is no head {bad[0]}")

    def act(self, site: Site, x: Tensor, moment: Moment) -> Tensor:
        """Heads become units here, where the site is known."""
        if self.heads is None:
            return super().act(site, x, moment)
        size = x.shape[-1] // (site.heads or 1)
        units = [unit for head in self.heads for unit in range((head % (site.heads or 1)) * size, (head % (site.heads or 1) + 1) * size)]
        return replace(self, heads=None, units=units).act(site, x, moment)

    def change(self, x: Tensor, offset: int) -> Tensor:
        """`x` with the units at zero or at their mean."""
        value = torch.zeros_like(x) if self.mean is None else like(self.mean, x).expand_as(x)
        if self.units is None:
            return value
        new = x.clone()
        chosen = list(self.units)
        new[..., chosen] = value[..., chosen]
        return new

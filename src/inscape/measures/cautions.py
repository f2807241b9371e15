"""What a reader must know about the rows behind a number: tokens that were cut, positions that drown the others."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from inscape.errors import InscapeWarning
from inscape.store import View

# One position with more than this share of the variance decides every spectrum and every distance.
MOST = 0.5


def truncation(views: Sequence[View]) -> list[str]:
    """A sentence per store whose capture cut tokens away."""
    stores = {id(view.store): view.store for view in views}.values()
    return [f"{store.system}: {store.manifest.cut}; the numbers are of what was read" for store in stores if store.manifest.cut]


def dominant_position(view: View, rows: Tensor) -> str | None:
    """A sentence if one position of the sequences carries most of the variance of rows [n, d], as attention sinks do; n d."""
    positions = view.position
    if view.kind == "stimulus" or len(np.unique(positions)) < 3:
        return None
    spread = (rows.double() - rows.double().mean(0)).square().sum(1).cpu().numpy()
    by_position = np.bincount(positions, weights=spread)
    first = int(by_position.argmax())
    share, held = by_position[first] / max(spread.sum(), np.finfo(float).tiny), float((positions == first).mean())
    if share <= MOST or share < 2 * held:
        return None
    return (
        f"{view.system}/{view.site}: position {first} carries {share:.0%} of the variance in {held:.0%} of the rows, as an attention sink "
        "does; leave it out (store.select, special='drop') to see the others"
    )


def tell(told: Sequence[str]) -> None:
    """One `InscapeWarning` with the first caution and how many there are."""
    if told:
        more = f" (and {len(told) - 1} more; see result.settings['warnings'])" if len(told) > 1 else ""
        warnings.warn(told[0] + more, InscapeWarning, stacklevel=3)

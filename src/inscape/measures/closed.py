"""The null of kernel measures without a permutation: exact moments over all pairings of the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inscape.errors import StoreMismatchError
from inscape.measures.base import Closed, Measure
from inscape.measures.one_system import Row
from inscape.stats.closed_form import KernelInvariants, permutation_moments
from inscape.summaries.plan import require_fit
from inscape.summaries.rows import SiteRows

ALPHA = 0.05


def check_closed(measures: Sequence[Measure], sources: np.ndarray) -> None:
    """Refuses measures without a closed form, and rows that are dependent.

    Raises:
        ValueError: a measure has no closed-form null.
        StoreMismatchError: several rows come from one source, so that single rows cannot change places.
    """
    lacking = [one.label for one in measures if one.closed is None]
    if lacking:
        raise ValueError(f"null='closed' has no formula for {', '.join(lacking)}; use null='permute' or null='sequential'")
    if len(np.unique(sources)) != len(sources):
        raise StoreMismatchError(
            f"null='closed' needs independent rows: the {len(sources)} rows come from {len(np.unique(sources))} sources; pool to one row "
            "a stimulus, or use null='permute', which exchanges whole sources"
        )


def add_closed(rows: Sequence[tuple[Row, tuple[SiteRows, SiteRows]]], measures: Mapping[str, Measure], budget: int) -> None:
    """Fills p, the mean of the null and the calibrated score of rows that have a value, in place."""
    known: dict[tuple[Closed, int], KernelInvariants] = {}

    def invariants(route: Any, site: SiteRows) -> KernelInvariants:
        key = (route, id(site))
        if key not in known:
            require_fit(24 * site.n * min(site.n, 2048), budget, f"the closed-form null of {site.name}", "compare a sample: sample=2000")
            known[key] = route(site.all())
        return known[key]

    for row, sides in rows:
        if row.get("value") is None or sides[0] is sides[1]:
            continue
        K, L = (invariants(measures[row["measure"]].closed, side) for side in sides)
        null, scale = permutation_moments(K, L), 1 / math.sqrt(K.square * L.square)
        threshold = scale * null.quantile(1 - ALPHA)
        room = 1 - threshold
        calibrated = min(1.0, max(0.0, (row["value"] - threshold) / room)) if room > 0 else 0.0
        row |= {"p": null.p(row["value"] / scale), "null_mean": scale * null.mean, "calibrated": calibrated}

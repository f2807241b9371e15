"""All features of a dictionary in a few numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from inscape.dictionaries.intervals import mean_row
from inscape.dictionaries.reading.interpretability import CHANCE, TASKS
from inscape.results import Result


def overview(features: Any) -> Result:
    """See `Features.result`."""
    settings = features.settings
    count, density = features.column("count"), features.column("density")
    shared = {"system": settings["system"], "site": settings["site"], "label": settings["dictionary"]}
    active = density[count > 0]
    rows: list[dict[str, Any]] = [
        {"measure": "features", "value": float(len(features)), "n": settings["n"]},
        {"measure": "alive", "value": float((count > 0).mean()), "n": settings["n"]},
        {"measure": "l0", "value": float(density.sum()), "n": settings["n"]},
    ]
    if len(active):
        rows.append({"measure": "median_density", "value": float(np.median(active)), "n": settings["n"]})
    for task in TASKS:
        values = features.column(task)
        known = values[~np.isnan(values.astype(float))]
        if len(known):
            rows.append({**mean_row(task, known, bounds=(0, 1)), "null_mean": CHANCE, "n": settings["n"]})
    arrays = {"density": density, "detection": features.column("detection").astype(float)}
    return Result([{**shared, **row} for row in rows], settings={**settings, "result": "features"}, arrays=arrays)

"""How far rows from a padded batch are from rows of the same stimuli run one by one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from inscape.capturing.batches import Limits
from inscape.capturing.budget import out_of_memory
from inscape.capturing.collect import Collector
from inscape.capturing.feeds import Feed
from inscape.errors import InscapeWarning
from inscape.models import Model

# The check may cost this part of the run; a run too short for it says so instead of doubling its own time.
SHARE = 0.05
# In full precision, drift beyond this part of the rms means that the forward itself sees the batch.
ALARM = 1e-3


def measure_drift(feed: Feed, collector: Collector, forward: Callable[[np.ndarray], None], stop: int, n: int) -> dict[str, Any]:
    """Largest difference as a part of the rms, by site, for two stimuli of the first shard (the shortest and the middle one).

    `forward` runs one batch of stimuli into `collector`; `stop` is the end of the first shard and `n` the number of stimuli.
    """
    if n * SHARE < 3:
        return {"measured": False, "why": f"{n} stimuli are too few to spend three forwards on it"}
    lengths, groups = feed.load(0, stop)
    same = np.flatnonzero(groups == groups[0])
    order = same[np.argsort(lengths[same], kind="stable")]
    pair = np.unique(order[[0, len(order) // 2]])
    if len(pair) < 2:
        return {"measured": False, "why": "no two stimuli of the first shard share a batch"}
    alone = _rows(collector, forward, [pair[:1], pair[1:]], stop)
    try:
        together = _rows(collector, forward, [pair], stop)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return {"measured": False, "why": "two stimuli do not fit into memory together"}
    drift: dict[str, float] = {}
    for name, a in together.items():
        b = alone[name]
        rms = float(b.double().square().mean().sqrt())
        gap = float((a.double() - b.double()).abs().max())
        drift[name] = gap / rms if rms > 0 else gap
    if max(drift.values()) > ALARM and all(values.dtype in (torch.float32, torch.float64) for values in alone.values()):
        worst = max(drift, key=lambda name: drift[name])
        warnings.warn(
            f"batching changes the activations: at {worst!r} a stimulus in a batch differs from itself alone by {drift[worst]:.2g} of the "
            "rms; pass batch_size=1 for rows that do not depend on their batch",
            InscapeWarning,
            stacklevel=4,
        )
    return {"measured": True, "lengths": [int(v) for v in lengths[pair]], "of_rms": drift}


def fidelity_note(model: Model, feed: Feed, side: str, limits: Limits, why: str = "") -> dict[str, Any]:
    """What is known before anything runs: padding (and why there is none), attention, the model's dtype, the shape of batches."""
    note: dict[str, Any] = {
        "padding": side if feed.pads else "none: only equal lengths share a batch",
        "attention": getattr(model.config, "_attn_implementation", None),
        "model_dtype": str(model.dtype).removeprefix("torch."),
        "batch": {"tokens": limits.tokens, "stimuli": limits.size},
    }
    if why:
        note["why"] = why
    if feed.describe().get("feat_extract_norm") == "group":
        note["why"] = "the group norm of the feature extractor runs over time and would see the padding"
    return note


def _rows(collector: Collector, forward: Callable[[np.ndarray], None], groups: list[np.ndarray], stop: int) -> dict[str, torch.Tensor]:
    collector.clear()
    for members in groups:
        forward(members)
    rows = {output.name: collector.gather(output, 0, stop) for output in collector.outputs}
    collector.clear()
    return rows

"""Whether texts of different length may share a batch: found by trying it once, since a mask alone does not promise it."""

from __future__ import annotations

import torch
from torch import Tensor

from inscape.capturing.feeds import Batch, TextFeed
from inscape.capturing.probe import move
from inscape.models import Model, Site

# Rows of a padded text may differ from those of the text alone by this part of their rms. Half precision rounds each batch shape
# differently, but what leaks out of padding is of the order of the activations themselves.
FULL, HALF = 1e-4, 0.05

WHY = (
    "the model's activations change when a text is padded (a state or a convolution runs over the padding), "
    "so only texts of equal length share a batch"
)


def padding_stays_out(model: Model, feed: TextFeed, sites: list[Site], *, trunk_only: bool) -> bool:
    """Whether the start of a text gives the same rows alone and padded beside a longer one.

    State-space models, linear attention and convolutions over positions may read what stands before a text even where a mask says
    that it is padding. What was found is kept with the model.
    """
    pair = feed.uneven()
    if pair is None:
        return True
    key = (feed.left, str(model.dtype), trunk_only, tuple(site.name for site in sites))
    known = model.padding_stays_out
    if key not in known:
        alone, padded = (_rows(model, sites, batch, trunk_only) for batch in pair)
        known[key] = all(_close(alone[name], padded[name]) for name in alone if name in padded)
    return known[key]


def _rows(model: Model, sites: list[Site], batch: Batch, trunk_only: bool) -> dict[str, Tensor]:
    """The real rows of the batch's first text, by site; sites with other positions than the text's are left out."""
    found: dict[str, Tensor] = {}
    places = next(iter(batch.places.values()))

    def keep(name: str, x: Tensor) -> None:
        if x.ndim == 2:
            found[name] = x[0].clone()
        elif x.ndim == 3 and x.shape[1] == places.length:
            real = places.real(x.shape[1])
            length = x.shape[1] if real is None else int(real[0])
            found[name] = (x[0, x.shape[1] - length :] if places.left else x[0, :length]).clone()

    with model.hooked(sites, keep, stop_after_last=True):
        model.run(move(batch, model.device, model.dtype), trunk_only=trunk_only, stop=True)
    return found


def _close(alone: Tensor, padded: Tensor) -> bool:
    if alone.shape != padded.shape:
        return False
    gap, scale = (padded.double() - alone.double()).abs(), float(alone.double().square().mean().sqrt())
    if alone.dtype in (torch.float32, torch.float64):
        return float(gap.max()) <= FULL * max(scale, 1e-30)
    return float(gap.square().mean().sqrt()) <= HALF * max(scale, 1e-30)

"""Whether a model keeps the documents of one context apart: found by trying it before the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inscape.capturing.feeds import Batch
from inscape.capturing.packing import WAYS, PackedFeed, Piece
from inscape.capturing.positions import PositionRule
from inscape.capturing.probe import Wanted, move
from inscape.errors import StimuliError
from inscape.models import Model, Site

# Rows of a document may differ by this part of their rms between a context and the document alone, and by this between two contexts that
# differ in other documents only. Half precision rounds each shape of a batch differently, hence the second number of each pair.
ALONE, NEIGHBORS = (1e-4, 0.06), (1e-5, 0.008)
# Tokens of a document that are tried.
_MOST = 8


def settle(model: Model, feed: PackedFeed, wanted: Sequence[Wanted], rule: PositionRule, *, trunk_only: bool) -> None:
    """Finds the first way that keeps documents apart, and has the feed go by it.

    Raises:
        StimuliError: no way does, or a site has no rows in a context.
    """
    asked = f"pack={feed.pack.length}"
    for item in wanted:
        if item.reducer is not None or item.site.port == "pattern":
            raise StimuliError(
                f"{asked}: {item.name!r} is about whole sequences, and a context holds several documents; capture it unpacked"
            )
    if feed.pack.across and rule.pooled:
        raise StimuliError(f"{asked}: documents that are read on may lie in several contexts, so they have no mean; ask for tokens='all'")
    sites = list({item.site.name: item.site for item in wanted}.values())
    lengths = feed.encoded.lengths
    longest = np.argsort(-lengths, kind="stable")[:3]
    documents = [int(longest[i % len(longest)]) for i in range(3)]
    most = [min(int(lengths[where]), _MOST) for where in documents]
    most[2] = most[0] = min(most[0], most[2])  # so that the two neighbors can change places
    if feed.pack.across:
        _rows(model, feed, sites, documents, most, trunk_only)
        return
    alone = _read(model, feed.beginning(documents[1], most[1]), sites, most[1], trunk_only)
    half = torch.finfo(model.dtype).bits < 32
    tried: list[str] = []
    for way, words in WAYS.items():
        window = getattr(model.config, "sliding_window", None)
        if (way == "positions" and not feed.positioned) or (way != "positions" and not feed.masked):
            tried.append(f"{words}: its forward takes none")
            continue
        if way != "positions" and isinstance(window, int) and window < feed.pack.length:
            tried.append(f"{words}: it would replace the sliding window of {window} tokens")
            continue
        feed.way = way
        try:
            together = _rows(model, feed, sites, documents, most, trunk_only)
            turned = _rows(model, feed, sites, documents[::-1], most, trunk_only)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if isinstance(error, StimuliError):
                raise
            tried.append(f"{words}: {type(error).__name__}")
            continue
        middle = slice(most[0], most[0] + most[1])
        leak = max(_gap(together[site.name][middle], turned[site.name][middle]) for site in sites)
        gap = max(_gap(together[site.name][middle], alone[site.name]) for site in sites)
        if leak <= NEIGHBORS[half] and gap <= ALONE[half]:
            return
        tried.append(f"{words}: a document in a context differs from itself alone by {max(leak, gap):.2g} of the rms")
    raise StimuliError(
        f"{asked}: {model.name} ({model.family}) does not keep documents of one context apart ({'; '.join(tried)}). Capture without pack, "
        "or let documents be read on as one text with pack={'length': …, 'across': True}"
    )


def _rows(model: Model, feed: PackedFeed, sites: list[Site], documents: list[int], most: list[int], trunk_only: bool) -> dict[str, Tensor]:
    """What each site gives for one context that holds the beginnings of some documents."""
    pieces, at = list[Piece](), 0
    for where, count in zip(documents, most, strict=True):
        pieces.append(Piece(where, 0, count, at))
        at += count
    return _read(model, feed.batch([pieces]), sites, at, trunk_only)


def _read(model: Model, batch: Batch, sites: list[Site], length: int, trunk_only: bool) -> dict[str, Tensor]:
    """What each site gives for a batch of one sequence."""
    found: dict[str, Tensor] = {}
    with model.hooked(sites, lambda name, x: found.__setitem__(name, x.clone()), stop_after_last=True):
        model.run(move(batch, model.device, model.dtype), trunk_only=trunk_only, stop=True)
    for name, x in found.items():
        if x.ndim != 3 or x.shape[1] != length:
            raise StimuliError(
                f"pack: site {name!r} gives shape {list(x.shape)} for a context of {length} tokens, so its rows cannot be assigned to "
                "documents; capture it unpacked"
            )
    return {name: x[0] for name, x in found.items()}


def _gap(a: Tensor, b: Tensor) -> float:
    wide, scale = (a.double() - b.double()).abs().max(), b.double().square().mean().sqrt()
    return float(wide / scale) if float(scale) > 0 else float(wide)

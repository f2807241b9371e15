"""What running a family shows, once for the tests and for the page that is made from them."""

from __future__ import annotations

from functools import cache

import inscape as ix
from inscape.models.sites import SiteInfo
from inscape.store import Store
from tests.families.catalog import families, first_of, model_of


@cache
def canonical(name: str) -> dict[str, SiteInfo]:
    """The canonical rows of the family's `model.sites()`, available or not."""
    return {row.name: row for row in model_of(name).sites() if row.canonical}


@cache
def readable(name: str) -> tuple[str, ...]:
    """Canonical sites that a capture can store as rows: those whose activations are one row per position."""
    model = model_of(name)
    return tuple(row.name for row in canonical(name).values() if row.available and model.resolve(row.name)[0].port in ("in", "out"))


@cache
def captured(name: str, side: str | None = None, size: int | None = None) -> Store:
    """All positions of all canonical sites over the family's stimuli; `size` 1 runs each stimulus alone."""
    family = families()[name]
    options = {} if side is None else {"padding_side": side}
    return ix.capture(model_of(name), family.stimuli(), list(readable(name)), "all", batch_size=size, progress=False, **options)


@cache
def captured_first(name: str) -> Store:
    """The first stimulus by itself."""
    family = families()[name]
    return ix.capture(model_of(name), first_of(family.stimuli()), list(readable(name)), "all", progress=False)


@cache
def drift(name: str, side: str | None) -> dict[str, float]:
    """Largest difference of rows from batches and of the same rows alone, as a part of the rms, by site."""
    together, alone = captured(name, side), captured(name, None, 1)
    found: dict[str, float] = {}
    for site in readable(name):
        a, b = together[site].torch().double(), alone[site].torch().double()
        assert a.shape == b.shape, f"{site}: {tuple(a.shape)} rows from batches, {tuple(b.shape)} alone"
        found[site] = float((a - b).abs().max() / b.square().mean().sqrt())
    return found

"""What running a family shows, once for the tests and for the page that is made from them."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch

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
    """What a capture can store as rows: canonical sites whose activations are one row per position, and the family's paths."""
    model = model_of(name)
    rows = [row.name for row in canonical(name).values() if row.available and model.resolve(row.name)[0].port in ("in", "out")]
    return (*rows, *families()[name].paths)


@cache
def listed(name: str) -> dict[str, SiteInfo]:
    """All rows of the family's `model.sites()`; shapes that are taken from what is captured are those of the first stimulus."""
    family, model = families()[name], model_of(name)
    if model.modality != "tensor":
        return {row.name: row for row in model.sites()}
    model = ix.load(model_of(name).module, **{"name": name, **family.load})
    ix.capture(model, first_of(family.stimuli()), list(readable(name)), "all", progress=False)
    return {row.name: row for row in model.sites()}


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


def run_by_hand(name: str, module: torch.nn.Module) -> Any:
    """What a module returns for the family's first stimulus, without inscape; None where the family does not say how."""
    family = families()[name]
    if family.by_hand is not None:
        return family.by_hand(module)
    tokenizer = family.load.get("tokenizer")
    if tokenizer is None or not family.sides:
        return None
    ids = tokenizer(family.stimuli()[0], return_tensors="pt")["input_ids"]
    return module(input_ids=ids)


# Where transformers' own patterns are, and what stands in front of `blocks` in the names of the sites that they belong to.
_TOLD = {"attentions": "", "encoder_attentions": "", "decoder_attentions": "decoder."}


@cache
def pattern_gap(name: str) -> float | None:
    """Largest difference of attention patterns from those that a twin with eager attention returns; None where it returns none."""
    wanted = [site for site, row in canonical(name).items() if row.available and site.endswith(".attn_pattern")]
    model = model_of(name)
    if not wanted or not hasattr(model.module, "_from_config"):
        return None
    twin: Any = type(model.module)._from_config(copy.deepcopy(model.config), attn_implementation="eager")
    twin.load_state_dict(model.module.state_dict(), strict=False)  # a pooling layer that was left out is random, and not looked at
    twin.config.output_attentions = True
    twin.eval()
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        told = run_by_hand(name, twin)
        with model.hooked(wanted, lambda site, value: seen.__setitem__(site, value.clone())):
            run_by_hand(name, model.module)
    gaps: list[float] = []
    for field, tower in _TOLD.items():
        given = [weights for weights in (getattr(told, field, None) or ()) if weights is not None]
        sites = [site for site in wanted if site.startswith(f"{tower}blocks.")]
        if given and len(given) == len(sites):
            gaps += [float((seen[site] - weights).abs().max()) for site, weights in zip(sites, given, strict=True)]
    return max(gaps) if gaps else None

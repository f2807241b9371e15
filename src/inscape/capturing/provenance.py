"""What a store says about its making: everything that decides its bytes, and what the units of a site are."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

import inscape
from inscape.capturing.collect import Output
from inscape.models import Model, Site
from inscape.models.placement import devices_of


def model_facts(model: Model, weights: bool) -> dict[str, Any]:
    """Who the model is and what acts on it; `weights` hashes the parameters where nothing else tells two models apart."""
    known = model.identity()
    if weights and not (model.as_loaded and ("commit" in known or "files_sha256" in known)):
        known = model.identity(weights=True)
    return {
        **known,
        "modality": model.modality,
        "edits": [edit.describe() for edit in model.edited],
        "hooks": foreign_hooks(model),
    }


def environment_facts(model: Model) -> dict[str, Any]:
    """The versions and the machine that the last digits depend on."""
    packages = {"torch": torch.__version__, "inscape": inscape.__version__}
    if model.config is not None:
        packages["transformers"] = version("transformers")
    devices = devices_of(model.module)
    modes: dict[str, str] = {}
    for device in devices:
        if torch.is_autocast_enabled(device):
            modes["autocast"] = str(torch.get_autocast_dtype(device)).removeprefix("torch.")
    if torch.get_float32_matmul_precision() != "highest":
        modes["float32_matmul_precision"] = torch.get_float32_matmul_precision()
    return {**packages, **modes, "device": "+".join(devices), "machine": platform.machine()}


def site_facts(site: Site) -> dict[str, Any]:
    """Where a site is read."""
    return {"path": site.path, "port": site.port, "kind": site.kind, **({"note": site.note} if site.note else {})}


def foreign_hooks(model: Model) -> list[str]:
    """Hooks that others left on the model: an edit changes the rows, so it is part of what they are."""
    found: list[str] = []
    for path, module in model.module.named_modules():
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            found.append(f"{path}: {getattr(hook, '__qualname__', type(hook).__name__)}")
    return found


def unit_tables(outputs: Sequence[Output], sites: Sequence[Site]) -> dict[str, dict[str, np.ndarray]]:
    """A unit table for every output whose units are made of attention heads."""
    heads = {site.name: site.heads for site in sites}
    found: dict[str, dict[str, np.ndarray]] = {}
    for output in outputs:
        if output.pattern is not None:
            found[output.name] = output.pattern.table(per_head=output.reducer is not None)
            continue
        count, d = heads[output.site], output.spec.d
        if output.reducer is None and count and d % count == 0:
            channel = np.arange(d // count)
            found[output.name] = {"head": np.repeat(np.arange(count), d // count), "channel": np.tile(channel, count)}
    return found

"""Diffusion models: an image, noised as far as its timestep says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor

from inscape.capturing.feeds.array import ArrayFeed, as_picture
from inscape.capturing.feeds.sequence import arguments_beside
from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError
from inscape.models import Model
from inscape.models.noised import TIMES

COLUMN = "timestep"
SEED = "noise_seed"


def time_argument(model: Model, stimuli: Stimuli, names: list[str]) -> str | None:
    """The argument under which a diffusion model is told the timestep; None for other modules."""
    name = next((name for name in TIMES if name in names[1:]), None)
    noised = _noiser(model) is not None or "_diffusers_version" in (model.config or {})
    return name if noised or stimuli.has(COLUMN) else None


def diffusion_feed(model: Model, stimuli: Stimuli, names: list[str], time: str) -> ArrayFeed:
    """Images noised by the scheduler (the model's `processor`, or the module's own `add_noise`) to the timestep of their row.

    Raises:
        StimuliError: the table has no timesteps.
    """
    if not stimuli.has(COLUMN):
        raise StimuliError(
            f"{model.name} reads the timestep of each image (its forward takes {time!r}), and the stimuli have no column {COLUMN!r}; "
            "give every image one, or each of several: ix.Stimuli(images).crossed(timestep=[10, 100, 500])"
        )
    whole = stimuli
    if stimuli.kind not in ("image", "array") and stimuli.has("image"):
        stimuli = stimuli.part("image")
    if stimuli.kind not in ("image", "array") or np.ndim(stimuli[0]) not in (2, 3):
        raise StimuliError(f"{model.name} reads images; got stimuli of kind {stimuli.kind!r}. Give arrays [n, channel, height, width]")
    steps = torch.tensor(whole.column(COLUMN))
    seeds = [int(seed) for seed in whole.column(SEED)] if whole.has(SEED) else [0] * len(whole)
    noisy = _noiser(model)

    def prepare(where: int) -> Tensor:
        image = stimuli[where]
        # Eight bits are pixels, which diffusion models read from −1 to 1.
        clean = as_picture(image, stimuli.ids[where]) if image.ndim == 2 or image.dtype == np.uint8 else torch.from_numpy(np.array(image))
        clean = clean * 2 - 1 if image.dtype == np.uint8 else clean.to(model.dtype)
        if noisy is None:
            return clean
        # The noise belongs to the stimulus, so that its timesteps lie on one path.
        key = hashlib.sha256(f"{seeds[where]} {whole.ids[where]}".encode()).digest()[:8]
        generator = torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float32).to(clean.dtype)
        return noisy(clean[None], noise[None], steps[where : where + 1])[0]

    main = names[0]
    beside = {time: list(steps), **arguments_beside(model, whole, names[1:], skip={time, COLUMN, main})}
    feed = ArrayFeed(stimuli, main, prepare, "patch", beside=beside)
    if stimuli is not whole:
        feed.note["content_sha256"] = stimuli.digest()
    by = "none: the images are read as they are" if noisy is None else _name(model)
    feed.note["noise"] = {"by": by, "seed": f"column {SEED}" if whole.has(SEED) else 0, "of": "the stimulus id"} if noisy else {"by": by}
    return feed


def _noiser(model: Model) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """`add_noise(clean, noise, timesteps)` of the scheduler or of the module."""
    for owner in (model.processor, model.module):
        found = getattr(owner, "add_noise", None)
        if callable(found):
            make = cast(Callable[[Tensor, Tensor, Tensor], Tensor], found)
            if owner is not model.module:
                return make
            # The schedule lies where the module does.
            return lambda *given: make(*(value.to(model.device) for value in given)).cpu()
    return None


def _name(model: Model) -> str:
    owner = model.processor if hasattr(model.processor, "add_noise") else model.module
    config = getattr(owner, "config", None)
    settings = {
        k: config[k] for k in ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps") if config is not None and k in config
    }
    return f"{type(owner).__name__} {settings}" if settings else type(owner).__name__

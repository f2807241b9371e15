"""Images, as the model's processor makes them, or as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from inscape.capturing.feeds.array import ArrayFeed, as_picture
from inscape.capturing.feeds.batch import main_input, wrong_kind
from inscape.capturing.stimuli import Stimuli
from inscape.models import Model


def image_feed(model: Model, stimuli: Stimuli, names: list[str], *, tower: str = "") -> ArrayFeed:
    """The feed of a model that reads pixels; `tower` is the stack that does, in a model of several."""
    whole = stimuli
    if stimuli.kind not in ("image", "array") and stimuli.has("image"):
        stimuli = stimuli.part("image")  # a table that also holds captions
    if stimuli.kind not in ("image", "array") or np.ndim(stimuli[0]) not in (2, 3):
        raise wrong_kind(model, stimuli, "images: paths, Pillow pictures or arrays [n, height, width, channel]")
    processor = getattr(model.processor, "image_processor", model.processor)
    main = "pixel_values" if tower else main_input(model.module, names, "pixel_values")
    feed = ArrayFeed(stimuli, main, _preparer(stimuli, processor), "patch", tower)
    feed.note = {"processor": None if processor is None else type(processor).__name__}
    if stimuli is not whole:
        feed.note["content_sha256"] = stimuli.digest()  # what is known of the whole is the captions
    return feed


def _preparer(stimuli: Stimuli, processor: Callable[..., dict[str, np.ndarray]] | None) -> Callable[[int], Tensor]:
    def prepare(where: int) -> Tensor:
        image = stimuli[where]
        if processor is not None and image.dtype == np.uint8:
            made = processor(images=image if image.ndim == 3 else np.stack([image] * 3, -1), return_tensors="np")
            return torch.from_numpy(np.asarray(made["pixel_values"])[0])
        return as_picture(image, stimuli.ids[where])

    return prepare

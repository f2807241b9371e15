"""Sounds: waves, or the features that a processor makes of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from inscape.capturing.batches import Limits
from inscape.capturing.feeds.array import ArrayFeed
from inscape.capturing.feeds.batch import main_input, wrong_kind
from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError
from inscape.models import Model

SOUND_LIMITS = Limits(480_000, 16)  # half a minute at 16 kHz


def sound_feed(model: Model, stimuli: Stimuli, names: list[str]) -> ArrayFeed:
    """The feed of a model that hears."""
    if stimuli.kind not in ("sound", "array") or (stimuli.kind == "array" and np.ndim(stimuli[0]) not in (1, 2)):
        raise wrong_kind(model, stimuli, "sounds: paths or arrays [n, samples] with sampling_rate=...")
    processor = getattr(model.processor, "feature_extractor", model.processor)
    expected = getattr(processor, "sampling_rate", None)
    main = main_input(model.module, names, "input_values")

    def prepare(where: int) -> Tensor:
        wave = np.asarray(stimuli[where])
        rate = stimuli.rate(where)
        if expected is not None and rate is not None and rate != expected:
            raise StimuliError(
                f"sound {stimuli.ids[where]!r} has {rate} samples a second, {model.name} reads {expected}; resample it first "
                "(scipy.signal.resample_poly does)"
            )
        if processor is not None and wave.ndim == 1:
            made = processor(wave, sampling_rate=expected, return_tensors="np")
            return torch.from_numpy(np.asarray(made[main])[0]).float()
        return torch.from_numpy(np.asarray(wave, np.float32))

    lengths_of = getattr(model.module, "_get_feat_extract_output_lengths", None)
    norm = getattr(model.config, "feat_extract_norm", None)
    # A group norm over time sees the padding, so such a model gives other numbers for a padded sound.
    pads = main == "input_values" and norm == "layer" and lengths_of is not None and "attention_mask" in names
    feed = ArrayFeed(stimuli, main, prepare, "frame", pads=pads, limits=SOUND_LIMITS)
    if pads:
        feed.frames = partial(_frames, cast(Callable[[Tensor], Tensor], lengths_of))
    feed.note = {"processor": None if processor is None else type(processor).__name__, "sampling_rate": expected, "feat_extract_norm": norm}
    return feed


def _frames(lengths_of: Callable[[Tensor], Tensor], lengths: np.ndarray) -> np.ndarray:
    return lengths_of(torch.from_numpy(lengths)).numpy().astype(np.int64)

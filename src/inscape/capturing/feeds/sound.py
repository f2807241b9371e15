"""Sounds: waves, or the features that a processor makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.capturing.batches import Limits
from inscape.capturing.feeds.array import ArrayFeed
from inscape.capturing.feeds.batch import Batch, Places, main_input, wrong_kind
from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError
from inscape.models import Model

SOUND_LIMITS = Limits(480_000, 16)  # half a minute at 16 kHz


@dataclass
class WaveFeed(ArrayFeed):
    """Waves that the model takes padded, with a mask.

    Attributes:
        frames: how many frames the model makes of so many samples.
    """

    frames: Callable[[np.ndarray], np.ndarray] = field(default=lambda lengths: lengths)

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The samples of each; all may share a batch."""
        super().load(start, stop)
        lengths = np.array([len(x) for x in self._loaded.values()], np.int64)
        return lengths, np.zeros_like(lengths)

    def batch(self, members: np.ndarray, rows: list[Tensor]) -> Batch:
        """The waves padded to the longest."""
        lengths = np.array([len(row) for row in rows], np.int64)
        waves = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        width = waves.shape[1]
        mask = (torch.arange(width) < torch.from_numpy(lengths)[:, None]).long()
        even = bool((lengths == width).all())
        known = {int(self.frames(np.array([width]))[0]): None if even else self.frames(lengths)}
        return Batch(members, {self.main: waves, "attention_mask": mask}, {self.tower: Places(_known(known, strict=not even))})


@dataclass
class FeatureFeed(ArrayFeed):
    """Spectra of sounds, all of one length: what follows a shorter sound is silence, and its frames are no rows.

    Attributes:
        real: by the frames of a sound's features, how many are not silence: as features, and as positions of the model.
    """

    real: dict[int, int] = field(default_factory=dict[int, int])
    positions: Callable[[np.ndarray], np.ndarray] = field(default=lambda lengths: lengths)

    def batch(self, members: np.ndarray, rows: list[Tensor]) -> Batch:
        """The features in one, and how many of their frames are the sound's own."""
        made = super().batch(members, rows)
        total = np.array([rows[0].shape[-1]])
        counts = np.array([self.real[int(where)] for where in members], np.int64)
        known: dict[int, np.ndarray | None] = {int(total[0]): counts, int(self.positions(total)[0]): self.positions(counts)}
        return Batch(made.members, made.inputs, {self.tower: Places(_known(known, strict=True))})


def _known(lengths: dict[int, np.ndarray | None], *, strict: bool) -> Callable[[int], np.ndarray | None]:
    def real(t: int) -> np.ndarray | None:
        if strict and t not in lengths:
            expected = " or ".join(str(length) for length in lengths)
            raise StimuliError(
                f"an output has {t} positions where {expected} frames were expected, so padding cannot be told apart; pass batch_size=1"
            )
        return lengths.get(t)

    return real


def sound_feed(model: Model, stimuli: Stimuli, names: list[str]) -> ArrayFeed:
    """The feed of a model that hears."""
    whole = stimuli
    if stimuli.kind not in ("sound", "array"):
        column = next((name for name in ("audio", "sound") if stimuli.has(name)), None)
        stimuli = stimuli if column is None else stimuli.part(column)
    if stimuli.kind not in ("sound", "array") or (stimuli.kind == "array" and np.ndim(stimuli[0]) not in (1, 2)):
        raise wrong_kind(model, stimuli, "sounds: paths or arrays [n, samples] with sampling_rate=...")
    processor = getattr(model.processor, "feature_extractor", model.processor)
    expected = getattr(processor, "sampling_rate", None)
    main = main_input(model.module, names, "input_values")
    module: Any = model.module
    lengths_of = getattr(module, "_get_feat_extract_output_lengths", None) or getattr(
        getattr(module, "base_model", None), "_get_feat_extract_output_lengths", None
    )
    norm = getattr(model.config, "feat_extract_norm", None)
    note: dict[str, Any] = {
        "processor": None if processor is None else type(processor).__name__,
        "sampling_rate": expected,
        "feat_extract_norm": norm,
    }
    if stimuli is not whole:
        note["content_sha256"] = stimuli.digest()  # what is known of the whole is the texts
    counted: dict[int, int] = {}

    def prepare(where: int) -> Tensor:
        wave = np.asarray(stimuli[where])
        _check_rate(stimuli, where, expected, model.name)
        if processor is None or wave.ndim != 1:
            counted[where] = wave.shape[-1]
            return torch.from_numpy(np.asarray(wave, np.float32))
        if main == "input_values":
            return torch.from_numpy(np.asarray(processor(wave, sampling_rate=expected, return_tensors="np")[main])[0]).float()
        longest = getattr(processor, "n_samples", None)
        if isinstance(longest, int) and len(wave) > longest:
            lasts, reads = (count / (expected or 1) for count in (len(wave), longest))
            raise StimuliError(
                f"sound {stimuli.ids[where]!r} lasts {lasts:.1f} s, {model.name} reads {reads:.1f} s at a time; cut it into pieces"
            )
        made = processor(wave, sampling_rate=expected, return_tensors="np", return_attention_mask=True)
        counted[where] = int(np.asarray(made["attention_mask"])[0].sum())
        return torch.from_numpy(np.asarray(made[main])[0]).float()

    positions = None if lengths_of is None else _frames(lengths_of)
    if main == "input_features" and positions is not None:
        note["frames"] = "those of the sound itself; the silence that fills up its features gives no rows"
        return FeatureFeed(stimuli, main, prepare, "frame", note=note, limits=SOUND_LIMITS, real=counted, positions=positions)
    # A group norm over time sees the padding, so such a model gives other numbers for a padded sound.
    if main == "input_values" and norm == "layer" and positions is not None and "attention_mask" in names:
        return WaveFeed(stimuli, main, prepare, "frame", pads=True, note=note, limits=SOUND_LIMITS, frames=positions)
    return ArrayFeed(stimuli, main, prepare, "frame", note=note, limits=SOUND_LIMITS)


def _check_rate(stimuli: Stimuli, where: int, expected: int | None, model: str) -> None:
    rate = stimuli.rate(where)
    if expected is not None and rate is not None and rate != expected:
        raise StimuliError(
            f"sound {stimuli.ids[where]!r} has {rate} samples a second, {model} reads {expected}; resample it first "
            "(scipy.signal.resample_poly does)"
        )


def _frames(lengths_of: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    def frames(lengths: np.ndarray) -> np.ndarray:
        return lengths_of(torch.from_numpy(np.asarray(lengths))).numpy().astype(np.int64)

    return frames

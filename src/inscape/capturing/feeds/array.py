"""One tensor per stimulus: plain arrays, and the ground of images and sounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.capturing.batches import Limits
from inscape.capturing.feeds.batch import Batch, Feed, Places, main_input
from inscape.capturing.feeds.stream import GridStream
from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError
from inscape.models import Model

ARRAY_LIMITS = Limits(10**9, 32)


@dataclass
class ArrayFeed(Feed):
    """Images, sounds and plain arrays: one tensor per stimulus; different shapes share a batch only where the model takes a mask."""

    stimuli: Stimuli
    main: str
    prepare: Callable[[int], Tensor]
    kind: str
    pads: bool = False
    time_first: bool = False
    frames: Callable[[np.ndarray], np.ndarray] | None = None
    default_tokens: str = "mean"
    note: dict[str, Any] = field(default_factory=dict[str, Any])
    limits: Limits = ARRAY_LIMITS
    _loaded: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def __post_init__(self) -> None:
        self.streams = {"": GridStream(self.kind)}

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Prepares the stimuli; what has another shape shares no batch, except for sounds that the model takes padded."""
        self._loaded = {where: self.prepare(where) for where in range(start, stop)}
        shapes = [tuple(x.shape) for x in self._loaded.values()]
        if self.pads:
            return np.array([shape[0] for shape in shapes], np.int64), np.zeros(len(shapes), np.int64)
        codes = {shape: code for code, shape in enumerate(sorted(set(shapes)))}
        # A long sound counts by its samples; images and feature arrays each count as one.
        lengths = [shape[0] if self.kind == "frame" and len(shape) == 1 else 1 for shape in shapes]
        return np.array(lengths, np.int64), np.array([codes[shape] for shape in shapes], np.int64)

    def collate(self, members: np.ndarray) -> Batch:
        """One batch of loaded stimuli."""
        return self._batch(members, [self._loaded[int(m)] for m in members])

    def probe(self) -> Batch:
        """Two copies of the first stimulus."""
        first = self.prepare(0)
        return self._batch(np.array([0, 0]), [first, first])

    def _batch(self, members: np.ndarray, rows: list[Tensor]) -> Batch:
        if not self.pads:
            stacked = torch.stack(rows, dim=1 if self.time_first else 0)
            return Batch(members, {self.main: stacked}, {"": Places()})
        lengths = np.array([len(row) for row in rows], np.int64)
        width = int(lengths.max())
        waves = torch.zeros(len(rows), width, dtype=rows[0].dtype)
        mask = torch.zeros(len(rows), width, dtype=torch.int64)
        for i, row in enumerate(rows):
            waves[i, : len(row)] = row
            mask[i, : len(row)] = 1
        even = bool((lengths == width).all())
        frames = lengths if self.frames is None else self.frames(lengths)
        total = width if self.frames is None else int(self.frames(np.array([width]))[0])

        def real(t: int) -> np.ndarray | None:
            if even:
                return None
            if t != total:
                raise StimuliError(
                    f"an output has {t} positions where {total} frames were expected, so padding cannot be told apart; pass batch_size=1"
                )
            return frames

        return Batch(members, {self.main: waves, "attention_mask": mask}, {"": Places(real)})

    def describe(self) -> dict[str, Any]:
        """Under which argument the model reads them, and how they were prepared."""
        return {"input": self.stimuli.kind, "argument": self.main, "mixes_lengths": self.pads, **self.note}


def as_picture(image: np.ndarray, name: str = "") -> Tensor:
    """An image as a float tensor [channel, height, width]: 8-bit values go to 0…1, floats stay as they are."""
    if image.ndim == 2:
        image = image[None]
    elif image.shape[-1] in (1, 3, 4) and image.shape[0] not in (1, 3, 4):
        image = np.moveaxis(image, -1, 0)
    elif image.shape[0] not in (1, 3, 4):
        raise StimuliError(f"image {name!r} has shape {list(image.shape)}; expected [height, width, channel] or [channel, height, width]")
    tensor = torch.from_numpy(np.array(image))
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor if tensor.is_floating_point() else tensor.float()


def tensor_feed(model: Model, stimuli: Stimuli, names: list[str]) -> ArrayFeed:
    """The feed of a module that takes one tensor."""

    def prepare(where: int) -> Tensor:
        value = stimuli[where]
        if stimuli.kind == "image":
            return as_picture(value, stimuli.ids[where])
        tensor = torch.from_numpy(np.array(value))
        return tensor.to(model.dtype) if tensor.is_floating_point() else tensor.long()

    feed = ArrayFeed(stimuli, main_input(model.module, names, "x"), prepare, "position")
    if np.ndim(stimuli[0]) == 2 and stimuli.kind != "image":  # [t, d]: a sequence, whose last state has read all of it
        feed.default_tokens = "last"
    # A bare recurrent module without batch_first reads [t, b, d]: give it that, so that stimuli stay stimuli.
    feed.time_first = isinstance(model.module, torch.nn.RNNBase) and not model.module.batch_first and np.ndim(stimuli[0]) == 2
    return feed

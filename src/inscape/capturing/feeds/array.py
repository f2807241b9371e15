"""One tensor per stimulus: plain arrays, and the ground of images and sounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.capturing.batches import Limits
from inscape.capturing.feeds.batch import Batch, Feed, Places
from inscape.capturing.feeds.stream import GridStream, Stream
from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError

ARRAY_LIMITS = Limits(10**9, 32)


@dataclass
class ArrayFeed(Feed):
    """Images, sounds and plain arrays: one tensor per stimulus; those of different shape share no batch.

    Attributes:
        main: the argument that takes them.
        prepare: makes the tensor of one stimulus.
        kind: what their positions are.
        tower: the stack that reads them, in a model of several.
        time_first: the module takes [t, b, d].
        beside: further arguments, with what each stimulus gives them.
    """

    stimuli: Stimuli
    main: str
    prepare: Callable[[int], Tensor]
    kind: str
    tower: str = ""
    pads: bool = False
    time_first: bool = False
    beside: dict[str, list[Tensor]] = field(default_factory=dict[str, list[Tensor]])
    default_tokens: str = "mean"
    note: dict[str, Any] = field(default_factory=dict[str, Any])
    limits: Limits = ARRAY_LIMITS
    _loaded: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def __post_init__(self) -> None:
        self.streams: dict[str, Stream] = {self.tower: GridStream(self.kind, self.tower)}

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Prepares the stimuli; a group is a shape."""
        self._loaded = {where: self.prepare(where) for where in range(start, stop)}
        shapes = [(tuple(x.shape), *(tuple(rows[i].shape) for rows in self.beside.values())) for i, x in self._loaded.items()]
        codes = {shape: code for code, shape in enumerate(sorted(set(shapes)))}
        return self.cost(list(self._loaded.values())), np.array([codes[shape] for shape in shapes], np.int64)

    def cost(self, rows: list[Tensor]) -> np.ndarray:
        """What each counts for in a batch: a sound its samples, images and feature arrays one."""
        return np.array([len(row) if self.kind == "frame" and row.ndim == 1 else 1 for row in rows], np.int64)

    def collate(self, members: np.ndarray) -> Batch:
        """One batch of loaded stimuli."""
        return self.batch(members, [self._loaded[int(m)] for m in members])

    def probe(self, where: int | None = None) -> Batch:
        """Two copies of one stimulus."""
        where = self.shortest() if where is None else where
        first = self.prepare(where)
        return self.batch(np.array([where, where]), [first, first])

    def batch(self, members: np.ndarray, rows: list[Tensor]) -> Batch:
        """The tensors in one, and what stands beside them."""
        stacked = torch.stack(rows, dim=1 if self.time_first else 0)
        return Batch(members, {self.main: stacked, **self.arguments(members)}, {self.tower: Places()})

    def arguments(self, members: np.ndarray) -> dict[str, Tensor]:
        """The further arguments of a batch."""
        return {name: torch.stack([rows[int(where)] for where in members]) for name, rows in self.beside.items()}

    def describe(self) -> dict[str, Any]:
        """Under which argument the model reads them, and how they were prepared."""
        note = {"columns_read": sorted(self.beside)} if self.beside else {}
        return {"input": self.stimuli.kind, "argument": self.main, "mixes_lengths": self.pads, **note, **self.note}


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

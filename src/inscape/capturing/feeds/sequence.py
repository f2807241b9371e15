"""Plain tensors, one per stimulus; sequences of different length where the module knows how to read them together."""

from __future__ import annotations

import inspect
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from inscape.capturing.feeds.array import ArrayFeed, as_picture
from inscape.capturing.feeds.batch import Batch, Places, main_input
from inscape.capturing.feeds.columns import per_position
from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError
from inscape.models import Model
from inscape.models.wrappers import core

# What modules call the lengths of padded sequences.
LENGTHS = ("lengths", "seq_lengths", "sequence_lengths", "input_lengths", "seq_lens")
# Arguments that say how a forward runs, not what it reads; and a label asks for a loss.
_NOT_READ = {"labels", "return_dict", "use_cache", "output_attentions", "output_hidden_states", "generator", "hx", "input_size"}


@dataclass
class SequenceFeed(ArrayFeed):
    """Sequences [t, …] of different length in one batch: packed for a bare recurrent layer, else padded with their lengths.

    Attributes:
        lengths: the argument that takes the lengths; "" for packing.
        always: that argument has no default, so it is passed where nothing is padded, too.
    """

    lengths: str = field(default="")
    always: bool = False

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The steps of each; all may share a batch."""
        super().load(start, stop)
        steps = np.array([len(x) for x in self._loaded.values()], np.int64)
        return steps, np.zeros_like(steps)

    def batch(self, members: np.ndarray, rows: list[Tensor]) -> Batch:
        """The sequences, padded or packed where they differ in length."""
        steps = np.array([len(row) for row in rows], np.int64)
        width = int(steps.max())
        even = bool((steps == width).all())
        counts = torch.from_numpy(steps)
        if even and not self.always:
            return super().batch(members, rows)
        padded: Any = pad_sequence(rows, batch_first=True)
        if not self.lengths:
            padded = pack_padded_sequence(padded, counts, batch_first=True, enforce_sorted=False)
        inputs = {self.main: padded, **self.arguments(members), **({self.lengths: counts} if self.lengths else {})}
        return Batch(members, inputs, {self.tower: Places(lambda t: None if even or t != width else steps)})


def tensor_feed(model: Model, stimuli: Stimuli, names: list[str]) -> ArrayFeed:
    """The feed of a module that takes one tensor, and what the table says for its other arguments."""

    def prepare(where: int) -> Tensor:
        value = stimuli[where]
        if stimuli.kind == "image":
            return as_picture(value, stimuli.ids[where])
        tensor = torch.from_numpy(np.array(value))
        return tensor.to(model.dtype) if tensor.is_floating_point() else tensor.long()

    main = main_input(model.module, names, "x")
    sequence = np.ndim(stimuli[0]) == 2 and stimuli.kind != "image"  # [t, d], whose last state has read all of it
    beside = arguments_beside(model, stimuli, names, skip={main, *LENGTHS})
    lengths = next((name for name in LENGTHS if name in names), None)
    bare = isinstance(model.module, nn.RNNBase) and model.forward is None
    if sequence and (bare or lengths):
        required = (
            lengths is not None and inspect.signature(core(model.module).forward).parameters[lengths].default is inspect.Parameter.empty
        )
        feed: ArrayFeed = SequenceFeed(stimuli, main, prepare, "position", pads=True, beside=beside, lengths=lengths or "", always=required)
    else:
        feed = ArrayFeed(stimuli, main, prepare, "position", beside=beside)
    if sequence:
        feed.default_tokens = "last"
        steps = np.array([len(stimuli[where]) for where in range(len(stimuli))], np.int64)
        feed.streams[""].columns_of = per_position(stimuli, steps)
    # A bare recurrent module without batch_first reads [t, b, d]: give it that, so that stimuli stay stimuli.
    feed.time_first = sequence and isinstance(model.module, nn.RNNBase) and not model.module.batch_first
    return feed


def arguments_beside(model: Model, stimuli: Stimuli, names: list[str], *, skip: Container[str]) -> dict[str, list[Tensor]]:
    """Columns that bear the name of an argument of the module's forward: what each stimulus gives it.

    Raises:
        StimuliError: such a column holds something that is no number.
    """
    found: dict[str, list[Tensor]] = {}
    for name in names:
        if name in skip or name in _NOT_READ or not stimuli.has(name):
            continue
        rows: list[Tensor] = []
        for where, value in enumerate(stimuli.column(name)):
            array = np.asarray(value)
            if array.dtype.kind not in "fiub":
                raise StimuliError(
                    f"column {name!r} is an argument of {model.name}, and for stimulus {stimuli.ids[where]!r} it holds "
                    f"{str(value)[:40]!r}; give numbers, or rename the column"
                )
            tensor = torch.from_numpy(array)
            rows.append(tensor.to(model.dtype) if tensor.is_floating_point() else tensor if array.dtype.kind == "b" else tensor.long())
        found[name] = rows
    return found

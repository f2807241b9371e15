"""Finds the one tensor that matters in what a module takes or returns, and puts a new one back into the same container."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

Key = int | str
Pick = tuple[Key, ...]


def children(value: Any) -> Iterator[tuple[Key, Any]]:
    """The entries of a container that may hold tensors: tuple, list, mapping or dataclass, in order."""
    if isinstance(value, Mapping):
        yield from value.items()  # a ModelOutput is a mapping of its fields that are not None
    elif isinstance(value, (tuple, list)):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name)


def locate(value: Any, *, floating: bool = True) -> Pick | None:
    """Where the first tensor of `value` lies: `()` when it is the tensor itself, `None` when there is none.

    Only floating tensors count unless `floating` is false, so that masks and ids are passed over.
    """
    if isinstance(value, Tensor):
        return () if value.is_floating_point() or not floating else None
    if isinstance(value, PackedSequence):
        return ()
    for key, child in children(value):
        found = locate(child, floating=floating)
        if found is not None:
            return (key, *found)
    return None


def get(value: Any, pick: Pick) -> Any:
    """The entry of a nested container that `pick` leads to."""
    for key in pick:
        value = value[key] if isinstance(key, int) or isinstance(value, Mapping) else getattr(value, key)
    return value


def put(value: Any, pick: Pick, new: Any) -> Any:
    """A container of the same type with the entry at `pick` exchanged; the old one is left as it is."""
    if not pick:
        return new
    key, inner = pick[0], put(get(value, pick[:1]), pick[1:], new)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{str(key): inner})
    if isinstance(value, Mapping):
        changed: Any = copy.copy(value)
        changed[key] = inner
        return changed
    whole: Any = value  # narrowed by the dataclass test above to what it is not
    items: list[Any] = list(whole)
    items[int(key)] = inner
    make: Any = getattr(type(whole), "_make", type(whole))  # a named tuple takes its fields one by one
    return make(items)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a module's tensor becomes `[b, t, d]` or `[b, d]`, and back.

    Attributes:
        time_first: the tensor is `[t, b, d]` (a recurrent layer without `batch_first`).
        channels_first: the tensor is `[b, c, *space]`; positions in space become rows.
        columns: the units `start:stop` of a wider tensor, such as the queries of a fused projection.
        grouped: `(groups, start, stop)`: units are stored group by group (a head, or heads that share a key head), and of each group
            these columns are meant.
        layers_first: the tensor is `[layers, b, d]`, the states of a recurrent layer; they stand end to end, `[b, layers · d]`.
    """

    time_first: bool = False
    channels_first: bool = False
    columns: tuple[int, int] | None = None
    grouped: tuple[int, int, int] | None = None
    layers_first: bool = False

    def read(self, value: Tensor | PackedSequence) -> Tensor:
        """The rows of a module's tensor; a view where that is possible."""
        if self.layers_first and isinstance(value, Tensor):
            return value.transpose(0, 1).flatten(1) if value.ndim == 3 else value
        if isinstance(value, PackedSequence):
            tensor, _ = pad_packed_sequence(value, batch_first=True)
        else:
            tensor = value.transpose(0, 1) if self.time_first and value.ndim == 3 else value
        if self.channels_first and tensor.ndim > 2:
            tensor = tensor.flatten(2).transpose(1, 2)
        elif tensor.ndim > 3:
            tensor = tensor.flatten(1, -2)
        if self.columns is not None:
            tensor = tensor[..., self.columns[0] : self.columns[1]]
        if self.grouped is not None:
            groups, start, stop = self.grouped
            tensor = tensor.unflatten(-1, (groups, -1))[..., start:stop].flatten(-2)
        return tensor

    def write(self, value: Tensor | PackedSequence, new: Tensor) -> Any:
        """`value` with its rows replaced by `new`, in the module's own layout; `value` itself is not changed."""
        if self.layers_first and isinstance(value, Tensor) and value.ndim == 3:
            return new.unflatten(1, (value.shape[0], -1)).transpose(0, 1)
        if isinstance(value, PackedSequence):
            _, lengths = pad_packed_sequence(value, batch_first=True)
            packed = pack_padded_sequence(new, lengths, batch_first=True, enforce_sorted=False)
            # The order inside a packed sequence was fixed when it was made; only the numbers change.
            return PackedSequence(packed.data, value.batch_sizes, value.sorted_indices, value.unsorted_indices)
        if self.columns is not None or self.grouped is not None:
            whole = value.clone()
            groups, start, stop = self.grouped if self.grouped is not None else (1, *(self.columns or (0, 0)))
            rows = new.transpose(0, 1) if self.time_first and value.ndim == 3 else new
            whole.unflatten(-1, (groups, -1))[..., start:stop] = rows.reshape(*value.shape[:-1], groups, -1)
            return whole
        if self.channels_first and value.ndim > 2:
            return new.transpose(1, 2).reshape(value.shape)
        if self.time_first and value.ndim == 3:
            return new.transpose(0, 1)
        return new.reshape(value.shape) if new.shape != value.shape else new


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers up to rounding in their dtype."""
    if a.shape != b.shape or a.device != b.device:
        return False
    if torch.equal(a, b):
        return True
    tolerance = 1e-5 if a.dtype in (torch.float32, torch.float64) else 2e-2
    scale = float(b.abs().max()) if b.numel() else 0.0
    return bool(((a - b).abs().max() <= tolerance * max(scale, 1e-6)).item())

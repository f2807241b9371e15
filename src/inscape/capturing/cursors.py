"""What can be read piece by piece, and how reading goes on in the middle after a run was killed."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from inscape.capturing.hub import is_hub_data, is_hub_stream, one_split, undecoded
from inscape.capturing.media import is_picture
from inscape.errors import StimuliError

# Inputs of models whose padding an attention mask tells apart, position by position.
_PADDED = ("input_ids", "input_values", "tokens")


@runtime_checkable
class Cursor(Protocol):
    """Stimuli that come one after another.

    Attributes:
        kind: what they come from, for the manifest.
        size: how many there are, where that is known.
    """

    kind: str
    size: int | None

    def begin(self) -> Iterator[Any]:
        """All stimuli from the first on: a value each, or a mapping of columns."""
        ...

    def forward(self, rows: Iterator[Any], done: int, start: int) -> Iterator[Any]:
        """The stimuli from number `start` on, when `done` of them were taken from `rows`."""
        ...

    def once(self) -> str | None:
        """Why a second run could not read them from the beginning; None where it can."""
        ...


def cursor_of(data: Any) -> Cursor | None:
    """The cursor for something that is read piece by piece; None for what is taken as a whole.

    Raises:
        StimuliError: it holds several data sets.
    """
    if is_hub_data(data):
        one_split(data)
        return None
    if is_hub_stream(data):
        return _HubStream(data)
    if isinstance(data, DataLoader):
        return _Again(lambda: _unbatched(data), "DataLoader", _length(getattr(data, "dataset", None)))
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset) and hasattr(data, "__len__"):
        return _Numbered(data)
    if isinstance(data, Iterator):
        return _Once(data)
    make: Any = data
    if inspect.isroutine(data) or isinstance(data, functools.partial):
        return _Again(lambda: iter(make()), "function", None)
    if isinstance(data, Iterable) and not isinstance(data, (Sized, str, bytes)) and not hasattr(data, "columns"):
        return _Again(lambda: iter(data), type(data).__name__, None)
    return None


class _Again:
    """What gives its stimuli from the first on whenever it is asked."""

    def __init__(self, make: Callable[[], Iterator[Any]], kind: str, size: int | None) -> None:
        self._make, self.kind, self.size = make, kind, size

    def begin(self) -> Iterator[Any]:
        """All stimuli."""
        return self._make()

    def forward(self, rows: Iterator[Any], done: int, start: int) -> Iterator[Any]:
        """Reads over those in between."""
        return itertools.islice(rows, start - done, None)

    def once(self) -> str | None:
        """They can be read again."""
        return None


class _HubStream(_Again):
    """An `IterableDataset` of Hugging Face, which skips faster than it reads."""

    def __init__(self, data: Any) -> None:
        self._data = undecoded(data)
        super().__init__(lambda: iter(self._data), "IterableDataset", None)

    def forward(self, rows: Iterator[Any], done: int, start: int) -> Iterator[Any]:
        """Skips."""
        return rows if done == start else iter(self._data.skip(start))


class _Numbered(_Again):
    """A torch `Dataset` with a length."""

    def __init__(self, data: Any) -> None:
        self._data = data
        super().__init__(lambda: self._from(0), "Dataset", len(data))

    def _from(self, start: int) -> Iterator[Any]:
        return (_as_row(self._data[i]) for i in range(start, len(self._data)))

    def forward(self, rows: Iterator[Any], done: int, start: int) -> Iterator[Any]:
        """Goes there directly."""
        return rows if done == start else self._from(start)


class _Once:
    """An iterator, which nobody can send back."""

    kind = "iterator"

    def __init__(self, rows: Iterator[Any]) -> None:
        self._rows = rows
        self.size: int | None = None

    def begin(self) -> Iterator[Any]:
        """What is left of them."""
        return self._rows

    def forward(self, rows: Iterator[Any], done: int, start: int) -> Iterator[Any]:
        """Reads over those in between."""
        return itertools.islice(rows, start - done, None)

    def once(self) -> str | None:
        """A generator that has not begun stands at its first item; of anything else nobody knows where it stands."""
        if inspect.isgenerator(self._rows) and inspect.getgeneratorstate(self._rows) == inspect.GEN_CREATED:
            return None
        return f"a {type(self._rows).__name__} cannot be sent back to its first item, and nobody can tell where it stands"


def _length(data: Any) -> int | None:
    return len(data) if isinstance(data, Sized) else None


def _unbatched(loader: Any) -> Iterator[Any]:
    """The rows of a loader's batches."""
    for number, batch in enumerate(loader):
        if loader.batch_size is None and loader.batch_sampler is None:  # such a loader gives its items one by one
            yield _as_row(batch)
        else:
            yield from _rows(batch, number, usual=loader.collate_fn is default_collate)


def _rows(batch: Any, number: int, *, usual: bool) -> Iterator[Any]:
    """One batch as rows. A tuple has parts, of which the first holds the stimuli; so has a list by the `usual` way of making batches,
    while a list from a function of the user's own holds the stimuli themselves.
    """
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        batch = dict(zip(getattr(batch, "_fields"), batch, strict=True))  # noqa: B009
    listed = isinstance(batch, list) and not (usual and all(isinstance(part, (torch.Tensor, tuple, list)) for part in batch))
    if isinstance(batch, Mapping):
        columns = {str(name): _column(values, name) for name, values in batch.items()}
        sizes = {name: len(values) for name, values in columns.items()}
        if len(set(sizes.values())) != 1:
            raise StimuliError(
                f"batch {number} of the loader has parts of different length ({', '.join(f'{k}: {v}' for k, v in sizes.items())}), so it "
                "cannot be cut into stimuli; give batches whose parts all have one value per stimulus"
            )
        for i in range(next(iter(sizes.values()))):
            yield _unpadded({name: values[i] for name, values in columns.items()}, number)
    elif isinstance(batch, (tuple, list)) and not listed:
        parts = [_column(part, f"part {i}") for i, part in enumerate(batch)]
        if len({len(part) for part in parts}) != 1:
            raise StimuliError(
                f"batch {number} of the loader has parts of {', '.join(str(len(part)) for part in parts)} values, so it cannot be cut into "
                "stimuli; give batches whose parts all have one value per stimulus"
            )
        for values in zip(*parts, strict=True):
            yield _as_row(values)
    elif isinstance(batch, (torch.Tensor, np.ndarray)):
        yield from _column(batch, "batch")
    elif isinstance(batch, list):
        yield from (_as_row(_array(row)) for row in batch)
    else:
        raise StimuliError(
            f"batch {number} of the loader is of type {type(batch).__name__}; expected a tensor, a dict of tensors, or a tuple whose first "
            "part holds the stimuli"
        )


def _column(values: Any, name: Any) -> Sequence[Any]:
    if isinstance(values, (torch.Tensor, np.ndarray)):
        array = values.detach().cpu() if isinstance(values, torch.Tensor) else values
        if array.ndim == 0:
            raise StimuliError(f"{name!r} of a batch is a single number; a batch has one value per stimulus")
        return array.tolist() if array.ndim == 1 else [_array(row) for row in array]
    if isinstance(values, (list, tuple)):
        return values
    raise StimuliError(f"{name!r} of a batch is of type {type(values).__name__}; expected a tensor or a list with one value per stimulus")


def _array(value: Any) -> Any:
    """A tensor as an array of its own, so that the batch it came from can be let go."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return value.clone() if value.dtype == torch.bfloat16 else value.numpy().copy()
    return np.array(value) if isinstance(value, np.ndarray) else value


def _as_row(value: Any) -> Any:
    """One item of a data set: of a tuple the first part is the stimulus, the second its label."""
    if not isinstance(value, (tuple, list)) or len(value) < 2 or not _is_stimulus_and_more(value):
        return value[0] if isinstance(value, tuple) and len(value) == 1 else value
    names = ["array", "label", *(f"part {i}" for i in range(2, len(value)))]
    if isinstance(value[0], str) or is_picture(value[0]):
        names[0] = "text" if isinstance(value[0], str) else "image"
    return {name: _scalar(part) for name, part in zip(names, value, strict=True)}


def _is_stimulus_and_more(value: Sequence[Any]) -> bool:
    """A list of numbers is one stimulus; a picture with its label is a stimulus and more."""
    return not all(isinstance(part, (int, float, Mapping)) for part in value)


def _scalar(value: Any) -> Any:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.item() if value.ndim == 0 else _array(value)
    return value


def _unpadded(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A row without the padding that its mask shows, in all parts that are as long."""
    name = next((name for name in _PADDED if name in row), None)
    mask = row.get("attention_mask")
    if name is None or mask is None or np.shape(mask) != np.shape(row[name])[:1]:
        return row
    real = np.flatnonzero(np.asarray(mask))
    if not len(real):
        raise StimuliError(f"a row of batch {number} has an attention mask of zeros alone, so there is nothing to read; leave it out")
    kept = slice(int(real[0]), int(real[-1]) + 1)
    length = len(mask)
    cut = {key: value[kept] if np.ndim(value) and len(value) == length else value for key, value in row.items()}
    if bool(np.all(np.asarray(cut["attention_mask"]) == 1)):
        del cut["attention_mask"]
    return cut

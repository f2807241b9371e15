"""Rows of one site, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from inscape.arrays import as_numpy
from inscape.errors import StimuliError, StoreMismatchError, nearest
from inscape.store.index import RowIndex
from inscape.store.manifest import SiteSpec
from inscape.store.page import view_page
from inscape.store.sources import ChosenRows, MeanRows, Source, UnfinishedRows
from inscape.store.tables import ID, as_array

# Rows that `batches` gives at a time: small enough that the allocator hands the same memory out again.
_BATCH_BYTES = 8 * 2**20


class View:
    """Rows [n, d] of one site of a store; nothing is read before it is asked for.

    Views come from `store["site"]` and `view.select(...)`. Everything that is read is a copy in the stored dtype.

    Example:
        >>> view = Store.from_arrays({"layer": X})["layer"]
        >>> view.select(rows=[2, 0]).torch()
    """

    def __init__(self, store: Any, site: str, *, source: Source, index: RowIndex, spec: SiteSpec, units: Any = None) -> None:
        self.store = store
        self.site = site
        self.row_set = spec.row_set
        self.kind = spec.kind
        self.index = index
        self.source = source
        self._spec = spec
        self._units = units

    @property
    def system(self) -> str:
        """The label of the model or recording."""
        return self.store.system

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.source.n

    @property
    def d(self) -> int:
        """Number of units."""
        return self.source.d

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self.n, self.d

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that rows are stored in and come out as."""
        return SiteSpec(self.row_set, self.d, self.source.dtype).torch_dtype

    @property
    def nbytes(self) -> int:
        """Bytes that all rows take."""
        return self.n * self.d * self.dtype.itemsize

    @property
    def stimulus(self) -> np.ndarray:
        """[n] int64: the row of `store.stimuli` each row came from; rows of one stimulus are dependent."""
        return self.index.stimulus

    @property
    def repeat(self) -> np.ndarray:
        """[n] int32: which presentation of its stimulus each row is."""
        return self.index.repeat

    @property
    def position(self) -> np.ndarray:
        """[n] int32: token, patch or frame within the stimulus; 0 where rows are whole stimuli."""
        return self.index.position

    @property
    def ids(self) -> np.ndarray:
        """[n] objects: the stimulus id of each row, as text."""
        return as_array(self.store.stimuli[ID])[self.stimulus]

    @property
    def columns(self) -> list[str]:
        """Names that `column` knows: the stimuli's columns and the rows' own."""
        own = [name for name in self.index.columns if name not in self.store.stimuli.column_names]
        return [*self.store.stimuli.column_names, *own]

    def column(self, name: str) -> np.ndarray:
        """[n]: a column of the rows, or one of the stimuli spread over the rows.

        Raises:
            StimuliError: there is no such column; the message lists the nearest.
        """
        if name in ("repeat", "position"):
            return self.repeat if name == "repeat" else self.position
        if name in self.index.columns:
            return self.index.column(name)
        if name in self.store.stimuli.column_names:
            return as_array(self.store.stimuli[name])[self.stimulus]
        raise StimuliError(f"{self.system}/{self.site} has no column {name!r}; nearest: {nearest(name, self.columns)}")

    @property
    def tokens(self) -> np.ndarray:
        """[n]: the token of each row, as text where the capture kept it, else its id."""
        for name in ("token", "token_id"):
            if name in self.index.columns:
                return self.index.column(name)
        raise StimuliError(
            f"rows of {self.system}/{self.site} are {self.kind} rows without tokens; capture with tokens='all' for one row per token"
        )

    @property
    def unit_table(self) -> pa.Table | None:
        """What is known about each unit (head, channel, ROI, …), one row per unit; None where nothing is."""
        return self._units() if callable(self._units) else self._units

    @property
    def readable(self) -> bool:
        """Whether values can be read: not so for an incomplete store that was opened without `partial=True`."""
        return not isinstance(self.source, UnfinishedRows)

    def read(self, start: int = 0, stop: int | None = None) -> Float[Tensor, "rows d"]:
        """Rows [start, stop) in the stored dtype; negative and missing bounds as in a slice."""
        start, stop, _ = slice(start, stop).indices(self.n)
        return self.source.read(start, max(start, stop))

    def gather(self, rows: Any) -> Float[Tensor, "rows d"]:
        """The rows with these numbers, in this order, in the stored dtype.

        Raises:
            IndexError: a row number is outside [-n, n).
        """
        return self.source.gather(row_numbers(rows, self.n, self))

    def batches(self, size: int | None = None) -> Iterator[Float[Tensor, "rows d"]]:
        """All rows in order, `size` at a time (default: about 8 MB)."""
        size = size or max(1, _BATCH_BYTES // max(1, self.d * self.dtype.itemsize))
        for start in range(0, self.n, size):
            yield self.read(start, start + size)

    def torch(self) -> Float[Tensor, "n d"]:
        """All rows as one tensor."""
        return self.read()

    def numpy(self) -> np.ndarray:
        """All rows as one array; bfloat16, which NumPy lacks, becomes float32 (exactly)."""
        return as_numpy(self.read())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __len__(self) -> int:
        return self.n

    def select(self, rows: Any = None, units: Any = None) -> View:
        """A lazy view of some rows and units.

        Args:
            rows: a slice, row numbers, a boolean mask [n], or None for all.
            units: the same for units [d].
        """
        chosen = None if rows is None else choice(rows, self.n, self)
        cut: Any = None
        table: Any = self._units
        if units is not None:
            cut = units if isinstance(units, slice) else row_numbers(units, self.d, self, "unit")
            if table is not None:
                table = partial(self._units_at, np.arange(self.d)[cut])
        return View(
            self.store,
            self.site,
            source=ChosenRows(self.source, chosen, cut),
            index=self.index if chosen is None else self.index.take(chosen),
            spec=self._spec,
            units=table,
        )

    def _units_at(self, units: np.ndarray) -> pa.Table:
        table = self.unit_table
        assert table is not None
        return table.take(pa.array(units))

    def mean_over_repeats(self) -> View:
        """A lazy view of the mean over the repeats of each stimulus (and position), in order of first appearance."""
        keys = np.stack([self.stimulus, self.position.astype(np.int64)], 1)
        _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first, kind="stable")] = np.arange(len(first))
        heads = np.sort(first)
        index = RowIndex.of(self.stimulus[heads], None, self.position[heads])
        return View(
            self.store, self.site, source=MeanRows(self.source, rank[group.reshape(-1)]), index=index, spec=self._spec, units=self._units
        )

    def padded(self) -> tuple[Float[Tensor, "sequences t d"], Bool[Tensor, "sequences t"]]:
        """Rows as sequences [sequences, t, d], one per stimulus and repeat in order of appearance, and the mask of real rows.

        Padding is zero. Rows of one sequence keep the order they have in the view.
        """
        keys = np.stack([self.stimulus, self.repeat.astype(np.int64)], 1)
        _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first, kind="stable")] = np.arange(len(first))
        sequence = rank[group.reshape(-1)]
        order = np.argsort(sequence, kind="stable")
        starts = np.searchsorted(sequence[order], np.arange(len(first)))
        step = np.empty(self.n, np.int64)
        step[order] = np.arange(self.n) - starts[sequence[order]]
        longest = int(step.max(initial=-1)) + 1
        mask = torch.zeros((len(first), longest), dtype=torch.bool)
        values = torch.zeros((len(first), longest, self.d), dtype=self.dtype)
        where = (torch.from_numpy(sequence), torch.from_numpy(step))
        mask[where] = True
        values[where] = self.read()
        return values, mask

    def __repr__(self) -> str:
        return f"View({self.system}/{self.site}: {self.n} {self.kind} rows × {self.d} units, {self._dtype_text()})"

    def _dtype_text(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def _repr_html_(self) -> str:
        return view_page(self)


def choice(rows: Any, n: int, owner: Any) -> range | np.ndarray:
    """Rows as a range where they are consecutive, else as numbers."""
    if isinstance(rows, (slice, range)) and (rows.step in (None, 1)):
        start, stop, _ = (slice(rows.start, rows.stop) if isinstance(rows, range) else rows).indices(n)
        if not isinstance(rows, range) or len(range(start, max(start, stop))) == len(rows):
            return range(start, max(start, stop))
    return row_numbers(rows, n, owner)


def row_numbers(rows: Any, n: int, owner: Any, what: str = "row") -> np.ndarray:
    """Non-negative int64 numbers from numbers, a mask or a slice.

    Raises:
        IndexError: a number is outside [-n, n).
        StoreMismatchError: a mask has another length, or the numbers are no integers.
    """
    if isinstance(rows, slice):
        return np.arange(n)[rows].copy()
    numbers = rows.cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
    if numbers.dtype == bool:
        if numbers.shape != (n,):
            raise StoreMismatchError(f"a mask of shape {numbers.shape} cannot choose among {n} {what}s of {owner!r}")
        return np.flatnonzero(numbers)
    if numbers.size == 0:
        numbers = numbers.astype(np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise StoreMismatchError(
            f"{what}s must be a slice, a mask or integers in one axis; got dtype {numbers.dtype} of shape {numbers.shape}"
        )
    numbers = numbers.astype(np.int64, order="C")  # a copy: torch takes no negative strides, and the caller may change its own
    if len(numbers):
        low, high = int(numbers.min()), int(numbers.max())
        if low < -n or high >= n:
            raise IndexError(f"{what} {low if low < -n else high} is outside {owner!r}, which has {n} {what}s")
        if low < 0:
            numbers = np.where(numbers < 0, numbers + n, numbers)
    return numbers


def single(views: Sequence[View]) -> View:
    """The only view of a sequence.

    Raises:
        StoreMismatchError: there are several; the message lists their sites.
    """
    if len(views) != 1:
        names = ", ".join(repr(view.site) for view in views[:8])
        raise StoreMismatchError(f"expected a store with one site, got {len(views)}: {names}; choose one with store[site]")
    return views[0]

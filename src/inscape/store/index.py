"""The index of a row set: which stimulus, repeat and position every row is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from inscape.errors import StoreMismatchError
from inscape.store.tables import INDEX_COLUMNS, as_array

_TYPES = {"stimulus": pa.int64(), "repeat": pa.int32(), "position": pa.int32()}


class RowIndex:
    """Stimulus, repeat and position of each row, with further columns; loaded when first asked for."""

    def __init__(self, load: Callable[[], pa.Table]) -> None:
        self._load = load

    @cached_property
    def table(self) -> pa.Table:
        """All columns, one row per row of values."""
        return self._load()

    @cached_property
    def stimulus(self) -> np.ndarray:
        """Row of the stimuli table that each row came from, int64."""
        return self._numbers("stimulus")

    @cached_property
    def repeat(self) -> np.ndarray:
        """Repeat number of each row within its stimulus, int32."""
        return self._numbers("repeat")

    @cached_property
    def position(self) -> np.ndarray:
        """Token, patch or frame number of each row within its stimulus, int32."""
        return self._numbers("position")

    def _numbers(self, name: str) -> np.ndarray:
        values = self.table[name].to_numpy()
        values.flags.writeable = False  # shared by every view of the row set
        return values

    @property
    def columns(self) -> list[str]:
        """Names of the columns beyond stimulus, repeat and position."""
        return [name for name in self.table.column_names if name not in INDEX_COLUMNS]

    def column(self, name: str) -> np.ndarray:
        """One of the further columns as NumPy."""
        return as_array(self.table[name])

    def take(self, rows: range | np.ndarray) -> RowIndex:
        """The index of a choice of rows."""
        if isinstance(rows, range):
            return RowIndex(lambda: self.table.slice(rows.start, len(rows)))
        return RowIndex(lambda: self.table.take(pa.array(rows)))

    def renumbered(self, stimulus: np.ndarray) -> RowIndex:
        """The same rows with `stimulus[old]` as stimulus numbers."""
        return RowIndex(lambda: self.table.set_column(0, "stimulus", pa.array(stimulus[self.stimulus], pa.int64())))

    @staticmethod
    def fixed(table: pa.Table) -> RowIndex:
        """An index on a table that is already there."""
        return RowIndex(lambda: table)

    @staticmethod
    def chained(parts: Sequence[RowIndex]) -> RowIndex:
        """Indexes one after another; a column that one of them lacks is null there."""
        return RowIndex(lambda: pa.concat_tables([part.table for part in parts] or [empty_index()], promote_options="default"))

    @staticmethod
    def of(stimulus: Any, repeat: Any = None, position: Any = None, columns: pa.Table | None = None) -> RowIndex:
        """An index in memory; repeat and position default to 0."""
        n = len(stimulus)
        zero = np.zeros(n, np.int32)
        data: dict[str, Any] = {
            "stimulus": stimulus,
            "repeat": zero if repeat is None else repeat,
            "position": zero if position is None else position,
        }
        table = pa.table({name: pa.array(np.asarray(values)).cast(_TYPES[name]) for name, values in data.items()})
        if columns is not None:
            for name in columns.column_names:
                table = table.append_column(name, columns[name])
        return RowIndex(lambda: table)


def index_table(table: pa.Table, row_set: str) -> pa.Table:
    """A writer's index table with its columns in order and in their types.

    Raises:
        StoreMismatchError: stimulus, repeat or position is missing or empty somewhere.
    """
    for name in INDEX_COLUMNS:
        if name not in table.column_names or table[name].null_count:
            raise StoreMismatchError(
                f"the index of row set {row_set!r} needs a full column {name!r}; it has {', '.join(table.column_names)}"
            )
    rest = [name for name in table.column_names if name not in INDEX_COLUMNS]
    ordered = table.select([*INDEX_COLUMNS, *rest])
    for at, name in enumerate(INDEX_COLUMNS):
        ordered = ordered.set_column(at, name, ordered[name].cast(_TYPES[name]))
    return ordered.replace_schema_metadata(None).combine_chunks()


def empty_index() -> pa.Table:
    """The index table of no rows."""
    return pa.table({name: pa.array([], kind) for name, kind in _TYPES.items()})

"""Vectors in columns of Parquet files, read one row group at a time."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import torch
from torch import Tensor

from inscape.errors import DegenerateInputError, StimuliError, StoreCorruptError, nearest
from inscape.store.array_rows import hash_rows
from inscape.store.files import restore_hint

pc: Any = pyarrow.compute  # its functions are made at import, where no type checker sees them

_PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npy", ".bin")
_KEPT = {"halffloat": "float16", "float": "float32", "double": "float64"}


class ParquetFiles:
    """Parquet files with the same columns, one after another.

    Args:
        path: a file, a folder of them, a pattern with `*`, or several of these; in the order of their names.

    Raises:
        StimuliError: there is no such file, or the columns of two of them do not go together.
        DegenerateInputError: a file is of another kind.
        StoreCorruptError: a file cannot be read.
    """

    def __init__(self, path: str | Path | Sequence[str | Path]) -> None:
        self.paths = _listed(path)
        self._files = [_opened(file) for file in self.paths]
        self.groups = [(file, group) for file in self._files for group in range(file.metadata.num_row_groups)]
        self.starts = np.cumsum([0, *(file.metadata.row_group(group).num_rows for file, group in self.groups)])
        schemas = [file.schema_arrow.remove_metadata() for file in self._files]
        try:
            self.schema = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise StimuliError(f"the files have columns of one name that do not go together ({error}); read them apart") from error
        for file, schema in zip(self.paths, schemas, strict=True):
            odd = sorted(set(schema.names) ^ set(self.schema.names))
            if odd:
                raise StimuliError(f"{file} lacks {', '.join(map(repr, odd[:5]))}, which other files have; read files of the same columns")

    @property
    def n(self) -> int:
        """Rows of all files."""
        return int(self.starts[-1])

    @property
    def name(self) -> str:
        """A label: the file's name, or that of the folder around several."""
        return self.paths[0].stem if len(self.paths) == 1 else self.paths[0].parent.name or self.paths[0].stem

    def group(self, number: int, columns: Sequence[str]) -> pa.Table:
        """One row group."""
        file, group = self.groups[number]
        return file.read_row_group(group, columns=list(columns))

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Whole columns."""
        parts = [file.read(columns=list(columns)) for file in self._files]
        return pa.concat_tables(parts, promote_options="permissive").combine_chunks().replace_schema_metadata(None)

    def named(self, patterns: str | Sequence[str]) -> list[str]:
        """The columns that names or globs stand for.

        Raises:
            StimuliError: there is none.
        """
        found: dict[str, None] = {}
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            hits = [name for name in self.schema.names if name == pattern or fnmatchcase(name, pattern)]
            if not hits:
                raise StimuliError(f"there is no column {pattern!r}; nearest: {nearest(pattern, self.schema.names)}")
            found.update(dict.fromkeys(hits))
        return list(found)

    def vectors(self) -> list[str]:
        """The columns that hold lists of floats."""
        return [field.name for field in self.schema if _is_list(field.type) and pa.types.is_floating(field.type.value_type)]


class ParquetRows:
    """Rows of one list column, or of many numeric columns side by side; the last row group that was read is kept."""

    def __init__(self, files: ParquetFiles, columns: Sequence[str], *, lists: bool) -> None:
        self.files, self.columns, self.lists = files, list(columns), lists
        for name in columns:
            self._check(name, files.schema.field(name).type)
        self.n, self._held = files.n, (-1, np.zeros((0, 0)))
        kind = files.schema.field(columns[0]).type
        self.dtype = _KEPT.get(str(kind.value_type), "float64") if lists else "float64"
        self.d = len(columns)
        if lists:
            self.d = kind.list_size if pa.types.is_fixed_size_list(kind) else self._matrix(0).shape[1] if files.groups else 0
        if not self.d:
            raise DegenerateInputError(f"column {columns[0]!r} holds lists without a number, so its rows have no unit")

    def _check(self, name: str, kind: pa.DataType) -> None:
        if self.lists and not (_is_list(kind) and _is_number(kind.value_type)):
            hint = "; numeric columns are named with columns=" if _is_number(kind) else ""
            raise StimuliError(f"column {name!r} is {kind}; a vector column holds lists of numbers{hint}")
        if not self.lists and not _is_number(kind):
            hint = "; a column of lists is named with vector=" if _is_list(kind) else ""
            raise StimuliError(f"column {name!r} is {kind}; units are numeric columns{hint}")

    def read(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop)."""
        return self.gather(np.arange(start, stop))

    def gather(self, rows: np.ndarray) -> Tensor:
        """The rows with these numbers, in this order."""
        out = np.empty((len(rows), self.d), self.dtype)
        group_of = np.searchsorted(self.files.starts, rows, "right") - 1
        for number in np.unique(group_of):
            places = np.flatnonzero(group_of == number)
            out[places] = self._matrix(int(number))[rows[places] - self.files.starts[number]]
        return torch.from_numpy(out)

    def fingerprint(self) -> str:
        """The hash that the same rows have in memory."""
        return hash_rows(self)

    def _matrix(self, number: int) -> np.ndarray:
        if self._held[0] != number:
            table, first = self.files.group(number, self.columns), int(self.files.starts[number])
            made = _list_rows(table[self.columns[0]], self.columns[0], first) if self.lists else self._side_by_side(table)
            if number and self.lists and made.shape[1] != self.d:
                raise StimuliError(f"column {self.columns[0]!r} is ragged: row 0 has {self.d} numbers, row {first} has {made.shape[1]}")
            self._held = number, made
        return self._held[1]

    def _side_by_side(self, table: pa.Table) -> np.ndarray:
        return np.stack([table[name].to_numpy().astype(np.float64) for name in self.columns], 1)


def _list_rows(column: Any, name: str, first: int) -> np.ndarray:
    """[n, d] of a column of equally long lists of numbers, whose first row has the number `first`."""
    if column.null_count:
        raise StimuliError(f"column {name!r} has {column.null_count} rows without a vector; drop or fill them")
    lengths = np.asarray(pc.list_value_length(column)) if len(column) else np.zeros(1, int)
    if (lengths != lengths[0]).any():
        row = int(np.flatnonzero(lengths != lengths[0])[0])
        raise StimuliError(f"column {name!r} is ragged: row {first} has {lengths[0]} numbers, row {first + row} has {lengths[row]}")
    flat = [chunk.flatten() for chunk in column.chunks]
    missing = sum(part.null_count for part in flat)
    if missing:
        raise StimuliError(f"column {name!r} has vectors with {missing} numbers missing; fill them (NaN is a number)")
    values = np.concatenate([part.to_numpy(zero_copy_only=False) for part in flat]) if flat else np.zeros(0, np.float32)
    return values.reshape(len(column), int(lengths[0]))


def _is_list(kind: Any) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _listed(path: str | Path | Sequence[str | Path]) -> list[Path]:
    found: list[Path] = []
    for one in [path] if isinstance(path, (str, Path)) else path:
        text = os.fspath(one)
        if Path(text).is_dir():
            inside = sorted(Path(text).glob("*.parquet"))
        elif any(sign in text for sign in "*?[") and not Path(text).exists():
            inside = [Path(name) for name in sorted(glob.glob(text, recursive=True))]
        else:
            inside = [Path(text)]
        if not inside:
            raise StimuliError(f"there is no Parquet file at {text!r}; give a file, a folder or a pattern such as 'embeddings/*.parquet'")
        found += inside
    if not found:
        raise StimuliError("there are no Parquet files; give at least one")
    return found


def _opened(path: Path) -> pq.ParquetFile:
    if path.suffix in _PICKLED:
        raise DegenerateInputError(f"{path} is not Parquet; arrays go to Store.from_arrays, and pickled files are never loaded")
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise StoreCorruptError(f"{path} cannot be read as Parquet ({error}); {restore_hint()}") from error

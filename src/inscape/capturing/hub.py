"""Data sets of Hugging Face's `datasets` as columns; pictures and sounds stay as their bytes until they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from inscape.arrays import format_bytes
from inscape.capturing.budget import available_memory
from inscape.errors import MemoryBudgetError, StimuliError

Columns = dict[str, list[Any]]

# Columns become Python objects, which take several times the room that they have in Arrow.
_GROWTH = 4


def is_hub_data(data: Any) -> bool:
    """Whether this is a `Dataset` or a dict of them, without importing `datasets`."""
    return _is(data, "Dataset") or _is(data, "DatasetDict") or _is(data, "IterableDatasetDict")


def is_hub_stream(data: Any) -> bool:
    """Whether this is an `IterableDataset` of Hugging Face."""
    return _is(data, "IterableDataset")


def hub_columns(data: Any) -> Columns:
    """The columns of a `Dataset`: those of its format, as plain Python values.

    Raises:
        StimuliError: it is a dict of several splits.
        MemoryBudgetError: it is too large to be read as a whole.
    """
    one_split(data)
    if data.format["type"] == "custom":  # the caller's own function makes the rows
        rows = [data[i] for i in range(len(data))]
        names = dict.fromkeys(name for row in rows for name in row)
        return {str(name): [row.get(name) for row in rows] for name in names}
    table: Any = data.with_format("arrow", columns=None if data.format["output_all_columns"] else data.format["columns"])[:]
    room = available_memory()
    if room is not None and table.nbytes * _GROWTH > room:
        raise MemoryBudgetError(
            f"the data set has {format_bytes(table.nbytes)} in {len(table)} rows, too much to be read as a whole ({format_bytes(room)} are "
            "free); read it in pieces: data.to_iterable_dataset()"
        )
    return {name: restored(table.column(name).to_pylist(), data.features[name]) for name in table.column_names}


def one_split(data: Any) -> None:
    """Refuses a dict of several splits."""
    if isinstance(data, Mapping):
        sizes = {name: f"{len(split)} rows" if hasattr(split, "__len__") else "a stream" for name, split in data.items()}
        raise StimuliError(
            f"a {type(data).__name__} holds several data sets ({', '.join(f'{name!r}: {size}' for name, size in sizes.items())}); choose "
            f"one, as in data[{next(iter(sizes), 'train')!r}]"
        )


def undecoded(data: Any) -> Any:
    """An `IterableDataset` whose rows are plain Python values, with pictures and sounds as their bytes."""
    return data.with_format(None).decode(False) if data.features is not None else data.with_format(None)


def restored(values: list[Any], feature: Any) -> list[Any]:
    """Arrays of a fixed number of axes come out of Arrow as lists within lists; they get their dtype back."""
    name = type(feature).__name__
    if name in ("Array2D", "Array3D", "Array4D", "Array5D"):
        dtype = pa.type_for_alias(feature.dtype).to_pandas_dtype()
        return [None if value is None else np.asarray(value, dtype) for value in values]
    return values


def _is(data: Any, name: str) -> bool:
    return any(base.__name__ == name and base.__module__.split(".")[0] == "datasets" for base in type(data).__mro__)

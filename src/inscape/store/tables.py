"""Tables of stimuli: what users hand in, as one Arrow table with a text column `stimulus`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from inscape.errors import StimuliError, StoreMismatchError

pc: Any = pyarrow.compute  # its functions are made at import, where no type checker sees them

ID = "stimulus"
INDEX_COLUMNS = ("stimulus", "repeat", "position")


def as_table(data: Any) -> pa.Table:
    """An Arrow table from an Arrow table, a pandas DataFrame or a mapping of columns; text is plain `string`.

    Raises:
        StimuliError: the data is none of these.
    """
    if isinstance(data, pa.Table):
        table = data
    elif isinstance(data, Mapping):
        table = pa.table({str(name): _column(values) for name, values in data.items()})
    elif type(data).__name__ == "DataFrame" and hasattr(data, "reset_index"):
        named = data.index.name == ID and ID not in data.columns
        table = pa.Table.from_pandas(data.reset_index() if named else data, preserve_index=False)
    else:
        raise StimuliError(
            f"stimuli must be a list of ids, a dict of columns, an Arrow table or a pandas DataFrame; got {type(data).__name__}"
        )
    # Arrow has several text types; one of them keeps hashes and bytes independent of who made the table.
    fields = [pa.field(f.name, pa.string() if _is_text(f.type) else f.type) for f in table.schema]
    return table.cast(pa.schema(fields)).replace_schema_metadata(None)


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_large_string(kind) or pa.types.is_string(kind) or pa.types.is_string_view(kind)


def _column(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return pa.array(values.tolist() if values.dtype.kind in "US" else values)
    return pa.array(values.tolist() if hasattr(values, "tolist") else list(values))


def stimulus_table(stimuli: Any, n: int | None = None) -> pa.Table:
    """One row per entry of `stimuli`, with the text column `stimulus` first; ids default to row numbers.

    Args:
        stimuli: None (then `n` is needed), a list of ids, a dict of columns, an Arrow table or a pandas DataFrame.
        n: the number of rows that is expected.

    Raises:
        StimuliError: the length is not `n`, or an id is missing.
    """
    if stimuli is None:
        table = pa.table({ID: [str(i) for i in range(n or 0)]})
    elif isinstance(stimuli, (list, tuple)) or (isinstance(stimuli, np.ndarray) and stimuli.ndim == 1):
        table = pa.table({ID: pa.array([str(item) for item in stimuli], pa.string())})
    else:
        table = as_table(stimuli)
        if ID not in table.column_names:
            table = table.add_column(0, ID, pa.array([str(i) for i in range(table.num_rows)], pa.string()))
    if n is not None and table.num_rows != n:
        raise StimuliError(f"there are {table.num_rows} stimuli for {n} rows; give one entry per row")
    ids = table[ID]
    if ids.null_count:
        raise StimuliError(f"{ids.null_count} of {n or len(ids)} stimuli have no id; fill the column {ID!r}")
    at = table.column_names.index(ID)
    text = ids if pa.types.is_string(ids.type) else pa.chunked_array([pa.array([str(v) for v in ids.to_pylist()], pa.string())])
    table = table.remove_column(at).add_column(0, ID, text)
    return table.combine_chunks()


def split_repeats(table: pa.Table) -> tuple[pa.Table, np.ndarray, np.ndarray, pa.Table]:
    """Rows with repeated ids as (one row per stimulus, stimulus of each row, its repeat number, columns that vary within one).

    A column that differs between repeats of one stimulus (the run, the session) describes the row, not the stimulus.
    """
    ids = table[ID].combine_chunks().dictionary_encode()
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.chunk(0)
    stimulus = np.asarray(ids.indices, np.int64)
    if len(ids.dictionary) == table.num_rows:
        return table, stimulus, np.zeros(len(stimulus), np.int32), table.select([])
    order = np.argsort(stimulus, kind="stable")
    starts = np.searchsorted(stimulus[order], np.arange(len(ids.dictionary)))
    repeat = np.empty(len(stimulus), np.int32)
    repeat[order] = np.arange(len(stimulus)) - starts[stimulus[order]]
    first = pa.array(order[starts])
    varying = [name for name in table.column_names if name != ID and not _constant(table[name], first, stimulus)]
    keep = [name for name in table.column_names if name not in varying]
    return table.select(keep).take(first), stimulus, repeat, table.select(varying)


def _constant(column: Any, first: Any, stimulus: np.ndarray) -> bool:
    if pa.types.is_nested(column.type):
        values = column.to_pylist()
        heads = [values[i] for i in first.to_pylist()]
        return all(value == heads[s] for value, s in zip(values, stimulus, strict=True))
    head = column.take(first).take(pa.array(stimulus))
    same = pc.or_kleene(
        pc.equal(column, head).fill_null(False), pc.and_(pc.is_null(column, nan_is_null=True), pc.is_null(head, nan_is_null=True))
    )
    return bool(pc.all(same).as_py())


def unique_ids(table: pa.Table) -> None:
    """Raises `StimuliError` naming the first ids that occur twice."""
    counts = pc.value_counts(table[ID])
    twice = [entry["values"].as_py() for entry in counts if entry["counts"].as_py() > 1]
    if twice:
        shown = ", ".join(repr(name) for name in twice[:3])
        raise StimuliError(
            f"{len(twice)} stimulus ids occur more than once ({shown}); a stimulus table has one row per id: "
            "repeats are rows with a repeat number, not further stimuli"
        )


def content_hash(table: pa.Table) -> str:
    """A SHA-256 of names and values that does not depend on chunks, on file versions or on who built the table."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table[name]
        # Parquet renames the fields inside of nested types, so only their values count.
        kind = "nested" if pa.types.is_nested(column.type) else str(column.type)
        digest.update(json.dumps([name, kind, len(column)]).encode())
        for block in _column_bytes(column):
            digest.update(block)
    return digest.hexdigest()


def _column_bytes(column: Any) -> Iterable[bytes]:
    kind = column.type
    if pa.types.is_string(kind):
        missing = np.asarray(column.is_null()).astype(np.uint8)
        lengths = np.asarray(pc.binary_length(column).fill_null(0)).astype(np.int64)
        yield missing.tobytes() + lengths.tobytes()
        for chunk in column.chunks:
            yield "".join(value for value in chunk.to_pylist() if value is not None).encode()
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        yield np.asarray(column.is_null()).astype(np.uint8).tobytes()
        yield np.ascontiguousarray(column.fill_null(0).to_numpy()).tobytes()
    else:
        yield json.dumps(column.to_pylist(), default=repr).encode()


def as_array(column: Any) -> np.ndarray:
    """An Arrow column as NumPy: numbers and truth values in their own dtype, text and everything else as objects."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or (pa.types.is_boolean(kind) and not column.null_count):
        return np.array(column.to_numpy())
    out = np.empty(len(column), object)
    out[:] = column.to_pylist()
    return out


def units_table(units: Any, d: int, site: str) -> pa.Table:
    """The unit table of a site, checked: one row per unit.

    Raises:
        StoreMismatchError: the number of rows is not `d`.
    """
    table = as_table(units)
    if table.num_rows != d:
        raise StoreMismatchError(f"the unit table of {site!r} has {table.num_rows} rows for {d} units; give one row per unit")
    return table.combine_chunks()

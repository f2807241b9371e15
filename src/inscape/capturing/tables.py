"""Tables of stimuli: reading them, and finding the column that holds the stimulus itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from inscape.capturing.chat import is_conversation
from inscape.capturing.hub import hub_columns, is_hub_data
from inscape.capturing.media import file_kind, is_media, is_picture, media_kind, media_name
from inscape.errors import StimuliError, nearest

TABLE_SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".json", ".txt")
CONTENT_COLUMNS = (
    *("text", "input_ids", "tokens", "messages", "image", "pixel_values", "audio", "sound", "input_values", "input_features"),
    *("array", "observation", "path", "sentence", "prompt"),
)
ID_COLUMNS = ("stimulus", "id")
# Arrays beyond this length are the stimuli themselves and nothing to look up by.
_LONG = 8192

Columns = dict[str, list[Any]]


def read_table(path: str | Path) -> Columns:
    """The columns of a Parquet, CSV, TSV, JSONL or text file (one text a line, as column "text")."""
    path = Path(path)
    if not path.is_file():
        raise StimuliError(
            f"there is no stimulus file at {str(path)!r}; expected a file that ends in {', '.join(TABLE_SUFFIXES)} (a text that ends so "
            "goes in a list)"
        )
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            return _arrow(pq.read_table(path))
        if suffix in (".csv", ".tsv"):
            import pyarrow.csv as pacsv

            options = pacsv.ParseOptions(delimiter="\t" if suffix == ".tsv" else ",", newlines_in_values=True)
            # An empty cell of a text column stays "" so that it is reported as an empty text, not as a missing one.
            return _arrow(pacsv.read_csv(path, parse_options=options))
        if suffix in (".jsonl", ".json"):
            import pyarrow.json as pajson

            return _arrow(pajson.read_json(path))
    except pa.ArrowInvalid as error:
        raise StimuliError(f"{str(path)!r} cannot be read as {suffix[1:].upper()}: {error}") from error
    return {"text": path.read_text(encoding="utf-8").splitlines()}


def table_columns(data: Any) -> Columns | None:
    """The columns of a pandas, Arrow or Hugging Face table, of a dict of lists or of a list of dicts; None when it is no table."""
    if is_hub_data(data):
        return hub_columns(data)
    if isinstance(data, (pa.Table, pa.RecordBatch)):
        return _arrow(data)
    if isinstance(data, Mapping):
        return _even({str(name): _listed(values) for name, values in data.items()})
    if hasattr(data, "columns") and hasattr(data, "to_dict") and not isinstance(data, (list, np.ndarray)):
        return {str(name): _listed(data[name]) for name in data.columns}
    if isinstance(data, (list, tuple)) and data and all(isinstance(row, Mapping) and not is_media(row) for row in data):
        names = dict.fromkeys(str(name) for row in data for name in row)
        return {name: [row.get(name) for row in data] for name in names}
    return None


def content_column(columns: Columns, asked: str | None) -> str:
    """The name of the column that holds the stimuli: the one asked for, a usual name, or the only candidate."""
    if asked is not None:
        if asked not in columns:
            raise StimuliError(f"the table has no column {asked!r}; nearest: {nearest(asked, columns)}")
        return asked
    for name in CONTENT_COLUMNS:
        if name in columns:
            return name
    candidates = [name for name, values in columns.items() if name not in ID_COLUMNS and values and _is_content(values[0])]
    if len(candidates) == 1:
        return candidates[0]
    raise StimuliError(
        f"which column holds the stimuli? The table has {', '.join(map(repr, columns)) or 'no columns'}; "
        f"name one with column=..., or call it one of {', '.join(map(repr, CONTENT_COLUMNS[:6]))}"
    )


def id_column(columns: Columns, asked: str | None) -> str | None:
    """The name of the column with the stimulus ids, if the table has one."""
    if asked is not None and asked not in columns:
        raise StimuliError(f"the table has no column {asked!r} to take the ids from; nearest: {nearest(asked, columns)}")
    return asked or next((name for name in ID_COLUMNS if name in columns), None)


def metadata(columns: Columns, n: int) -> pa.Table:
    """The columns that Arrow can hold; pictures, long waves and other objects stay out, they are not metadata."""
    kept: dict[str, pa.Array] = {}
    for name, values in columns.items():
        values = [value.detach().cpu().numpy() if hasattr(value, "detach") else value for value in values]
        if any(is_picture(value) or (isinstance(value, np.ndarray) and (value.ndim > 1 or value.size > _LONG)) for value in values):
            continue
        if any(is_media(value) for value in values):
            files = [media_name(value) if is_media(value) else value for value in values]
            if any(name is not None for name in files):
                kept[name] = pa.array(files, pa.string())
            continue
        plain = [
            value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value) if isinstance(value, Path) else value
            for value in values
        ]
        try:
            array = pa.array(plain)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise StimuliError(f"column {name!r} mixes kinds of values ({error}); give it one type, for instance all text") from error
        kept[name] = array
    return pa.table(kept) if kept else pa.table({"stimulus": pa.array([None] * n, pa.string())}).drop_columns(["stimulus"])


def kind_of(values: list[Any], name: str | None = None) -> str:
    """What a list of stimuli is: "text", "tokens", "chat", "image", "sound" or "array", judged by all of its items.

    A column `name` of "messages" may hold conversations as JSON.
    """
    if name == "messages" and values and all(isinstance(value, str) and value.lstrip().startswith("[{") for value in values):
        return "chat"
    missing = [position for position, value in enumerate(values) if _is_missing(value)]
    if missing:
        told = f"{len(missing)} stimuli are missing ({values[missing[0]]}), the first at position {missing[0]}"
        raise StimuliError(f"{told}; drop those rows or fill them")
    kinds = {_kind(value) for value in values}
    if kinds == {"image", "text"} or kinds == {"sound", "text"}:
        kinds = {"text"}  # a sentence may well end in ".png"; only a list of nothing but file names is a list of files
    if len(kinds) > 1:
        raise StimuliError(f"the stimuli mix {' and '.join(sorted(kinds))}; a capture reads one kind, so pass them apart")
    return kinds.pop()


def _arrow(table: pa.Table | pa.RecordBatch) -> Columns:
    return {name: table.column(name).to_pylist() for name in table.schema.names}


def _kind(value: Any) -> str:
    if is_conversation(value):
        return "chat"
    if isinstance(value, (str, Path)):
        return file_kind(str(value)) or "text"
    if is_picture(value):
        return "image"
    if is_media(value):
        return media_kind(value)
    array = np.asarray(value) if not hasattr(value, "detach") else value.detach().cpu().numpy()
    if array.dtype.kind not in "fiub":
        raise StimuliError(f"a stimulus of type {type(value).__name__} is neither text, numbers, an image nor a sound: {str(value)[:60]!r}")
    if array.dtype == np.uint8 and array.ndim in (2, 3):
        return "image"
    return "tokens" if array.ndim == 1 and array.dtype.kind in "iu" else "array"


def _is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, or what tables of numbers and pandas put there."""
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")


def _is_content(value: Any) -> bool:
    return isinstance(value, (str, Path, list, np.ndarray)) or is_picture(value) or is_media(value) or hasattr(value, "detach")


def _listed(values: Any) -> list[Any]:
    if isinstance(values, (str, bytes)):
        raise StimuliError(f"a table's columns are lists of one value per stimulus; got the single text {values[:60]!r}")
    if isinstance(values, np.ndarray) or hasattr(values, "detach"):
        array = values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()
        return array.tolist() if array.ndim == 1 else list(array)
    if hasattr(values, "to_pylist"):
        return list(values.to_pylist())
    return list(values.tolist()) if hasattr(values, "tolist") else list(values)


def _even(columns: Columns) -> Columns:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise StimuliError(
            f"the columns differ in length ({', '.join(f'{k}: {v}' for k, v in lengths.items())}); each needs one value per stimulus"
        )
    return columns

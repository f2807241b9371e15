"""Stores of ready arrays, tables and files; a pickle is never loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from inscape.arrays import as_tensor
from inscape.errors import DegenerateInputError, StimuliError, StoreMismatchError, nearest
from inscape.store.files import read_parquet
from inscape.store.index import RowIndex
from inscape.store.manifest import Manifest, ShardEntry, SiteSpec
from inscape.store.shards import dtype_name
from inscape.store.sources import TensorRows
from inscape.store.store import Site, Store
from inscape.store.tables import ID, content_hash, split_repeats, stimulus_table, units_table
from inscape.store.view import View, single

ROW_SET = "stimuli"


def from_arrays(arrays: Any, stimuli: Any = None, *, to: str | Path | None = None, units: Any = None, system: str | None = None) -> Store:
    """See `Store.from_arrays`."""
    given = _by_site(arrays)
    tensors = {name: _matrix(value, name) for name, value in given.items()}
    heads = {name: tuple(value.shape[:-1]) for name, value in tensors.items()}
    if not tensors:
        raise StoreMismatchError("there are no arrays; give at least one [n, d]")
    lead = next(iter(heads.values()))
    if any(shape != lead for shape in heads.values()):
        shown = ", ".join(f"{name!r}: {tuple(value.shape)}" for name, value in tensors.items())
        raise StoreMismatchError(f"the arrays have different rows ({shown}); arrays of one store share their first axis (and repeats)")
    n, r = lead[0], lead[1] if len(lead) == 2 else 1
    table, stimulus, repeat, varying = split_repeats(stimulus_table(stimuli, n))
    if len(lead) == 2:
        if len(table) != n:
            raise StimuliError(f"the arrays have an axis of {r} repeats and stimulus ids come back as well; give one or the other")
        stimulus, repeat = np.repeat(np.arange(n), r), np.tile(np.arange(r, dtype=np.int32), n)
    index = RowIndex.of(stimulus, repeat, None, varying)
    tables = _unit_tables(units, tensors)
    sites = {
        name: Site(SiteSpec(ROW_SET, value.shape[-1], dtype_name(value.dtype)), TensorRows(value.flatten(0, -2)), index, tables.get(name))
        for name, value in tensors.items()
    }
    return _finished(table, sites, {"source": "arrays"}, to, system or (Path(to).name if to is not None else "arrays"))


def _finished(table: pa.Table, sites: dict[str, Site], plan: dict[str, Any], to: str | Path | None, system: str) -> Store:
    n = next(iter(sites.values())).source.n
    manifest = Manifest(
        system=system,
        plan=plan,
        sites={name: entry.spec for name, entry in sites.items()},
        stimuli={"rows": table.num_rows, "sha256": content_hash(table)},
        units={name: {"sha256": content_hash(entry.units)} for name, entry in sites.items() if entry.units is not None},
        shards=(ShardEntry({ROW_SET: (0, n)}),),
        complete=True,
    )
    store = Store(manifest, table, sites)
    return store if to is None else store.save(to)


def _by_site(arrays: Any) -> dict[str, Any]:
    if isinstance(arrays, Mapping):
        return {str(name): value for name, value in arrays.items()}
    if isinstance(arrays, (str, Path)) and Path(arrays).suffix == ".safetensors":
        return dict(_safetensors(Path(arrays)))
    return {"X": arrays}


def _matrix(value: Any, site: str) -> Tensor:
    """A tensor [n, d] or [n, r, d] of a dtype that a store holds."""
    if isinstance(value, (str, Path)):
        value = _file(Path(value))
    array = value if isinstance(value, (Tensor, View)) else np.asarray(value)
    if isinstance(array, np.ndarray) and array.dtype.kind == "O":
        raise DegenerateInputError(
            f"site {site!r} is an array of Python objects of shape {array.shape}; a store holds numbers. "
            "Objects would need pickle, which is never used: convert with .astype(float)"
        )
    tensor = as_tensor(array).cpu()
    if tensor.ndim not in (2, 3) or not tensor.shape[-1]:
        raise DegenerateInputError(
            f"site {site!r} has shape {tuple(tensor.shape)}; expected [n, d]: one row per stimulus, or [n, r, d]: r repeats of each"
        )
    return tensor if tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64) else tensor.to(torch.float32)


def _file(path: Path) -> Any:
    """The array of an `.npy` file or of a `.safetensors` file with one tensor."""
    if path.suffix == ".safetensors":
        tensors = _safetensors(path)
        if len(tensors) != 1:
            raise StoreMismatchError(
                f"{path} holds {len(tensors)} tensors ({', '.join(list(tensors)[:5])}); give it alone, not as one site"
            )
        return next(iter(tensors.values()))
    if path.suffix != ".npy":
        raise DegenerateInputError(
            f"{path} is not read: arrays come from .npy and .safetensors files, tables from Store.from_parquet. "
            "Pickled files (.pkl, .pt, .joblib, …) can run code when they are loaded and are always refused"
        )
    try:
        return np.load(path, allow_pickle=False)
    except ValueError as error:
        raise DegenerateInputError(
            f"{path} is refused ({error}); an .npy file of Python objects is a pickle, which is never loaded"
        ) from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _unit_tables(units: Any, tensors: Mapping[str, Tensor]) -> dict[str, pa.Table]:
    if units is None:
        return {}
    by_site = isinstance(units, Mapping) and set(units) <= set(tensors)
    if not by_site and len(tensors) > 1:
        raise StoreMismatchError(f"unit tables belong to sites; give units as a dict with the keys {', '.join(map(repr, tensors))}")
    tables = units if by_site else {next(iter(tensors)): units}
    return {site: units_table(table, int(tensors[site].shape[-1]), site) for site, table in tables.items()}


def from_parquet(
    path: str | Path,
    *,
    vector: str | Sequence[str] | None = None,
    columns: str | Sequence[str] | None = None,
    stimulus: str | None = None,
    to: str | Path | None = None,
    system: str | None = None,
) -> Store:
    """See `Store.from_parquet`."""
    table = _parquet(Path(path))
    if stimulus is not None and stimulus != ID:
        _known(stimulus, table)
        if ID in table.column_names:
            raise StimuliError(f"{path} has a column {ID!r} already; drop it or leave stimulus= out")
        table = table.rename_columns([ID if name == stimulus else name for name in table.column_names])
    vectors = (
        _names(vector, table) if vector is not None else [] if columns is not None else [f.name for f in table.schema if _is_vector(f)]
    )
    scalars = _names(columns, table) if columns is not None else []
    if not vectors and not scalars:
        raise StimuliError(
            f"{path} has no column of number lists; name numeric columns with columns=: {', '.join(table.column_names[:12])}"
        )
    arrays: dict[str, Tensor] = {name: _vectors(table[name], name) for name in vectors}
    units: dict[str, Any] = {}
    if scalars:
        arrays["X"] = torch.from_numpy(np.stack([_scalars(table[name], name) for name in scalars], 1))
        units["X"] = {"unit": scalars}
    rest = [name for name in table.column_names if name not in (*vectors, *scalars)]
    described = table.select(rest) if rest else None
    return from_arrays(arrays, described, to=to, units=units or None, system=system or Path(path).stem)


def _parquet(path: Path) -> pa.Table:
    if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npy", ".bin"):
        raise DegenerateInputError(f"{path} is not Parquet; arrays go to Store.from_arrays, and pickled files are never loaded")
    return read_parquet(path)


def _known(name: str, table: pa.Table) -> None:
    if name not in table.column_names:
        raise StimuliError(f"there is no column {name!r}; nearest: {nearest(name, table.column_names)}")


def _names(patterns: str | Sequence[str], table: pa.Table) -> list[str]:
    found: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        hits = [name for name in table.column_names if name == pattern or fnmatchcase(name, pattern)]
        if not hits:
            _known(pattern, table)
        found.update(dict.fromkeys(hits))
    return list(found)


def _is_list(kind: Any) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_vector(field: Any) -> bool:
    return _is_list(field.type) and pa.types.is_floating(field.type.value_type)


def _vectors(column: Any, name: str) -> Tensor:
    """[n, d] of a column of equally long lists of numbers."""
    kind = column.type
    if not _is_list(kind) or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise StimuliError(f"column {name!r} is {kind}; a vector column holds lists of numbers")
    if column.null_count:
        raise StimuliError(f"column {name!r} has {column.null_count} rows without a vector; drop or fill them")
    lengths = np.asarray([len(value) for value in column]) if len(column) else np.zeros(1, int)
    if (lengths != lengths[0]).any():
        row = int(np.flatnonzero(lengths != lengths[0])[0])
        raise StimuliError(f"column {name!r} is ragged: row 0 has {lengths[0]} numbers, row {row} has {lengths[row]}")
    flat = [chunk.flatten() for chunk in column.chunks]
    values = np.concatenate([part.to_numpy(zero_copy_only=False) for part in flat]) if flat else np.zeros(0, np.float32)
    return as_tensor(values.reshape(len(column), int(lengths[0])))


def _scalars(column: Any, name: str) -> np.ndarray:
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise StimuliError(f"column {name!r} is {column.type}; units are numeric columns")
    return column.to_numpy().astype(np.float64)


def view_of(data: Any, name: str = "X") -> View:
    """`data` as a view: a view stays as it is, a store gives its only site, an array becomes a store in memory.

    Raises:
        StoreMismatchError: the store has several sites.
        DegenerateInputError: the array is not numeric or not [n, d].
    """
    if isinstance(data, View):
        return data
    if isinstance(data, Store):
        return single([data.view(site) for site in data.sites])
    return from_arrays({name: data})[name]

"""Stores of ready arrays, tables and files; a pickle is never loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from inscape.arrays import as_tensor
from inscape.errors import DegenerateInputError, StimuliError, StoreMismatchError
from inscape.store.array_rows import ArrayRows, map_npy, map_npz, stays_on_disk
from inscape.store.faiss_rows import FaissRows, kept_by, open_index, tell_loss
from inscape.store.index import RowIndex
from inscape.store.manifest import Manifest, ShardEntry, SiteSpec
from inscape.store.parquet_vectors import ParquetFiles, ParquetRows
from inscape.store.sources import Source, TensorRows
from inscape.store.store import Site, Store
from inscape.store.tables import ID, content_hash, split_repeats, stimulus_table, units_table
from inscape.store.view import View, single

ROW_SET = "stimuli"


def from_arrays(arrays: Any, stimuli: Any = None, *, to: str | Path | None = None, units: Any = None, system: str | None = None) -> Store:
    """See `Store.from_arrays`."""
    given = {name: _given(value, name) for name, value in _by_site(arrays).items()}
    return from_rows(given, stimuli, to=to, units=units, system=system or (Path(to).name if to is not None else "arrays"))


@dataclass(frozen=True)
class Given:
    """The rows of one site: [n, d], or [n, r, d] with r repeats of each."""

    shape: tuple[int, ...]
    source: Source


def from_rows(
    given: Mapping[str, Given],
    stimuli: Any,
    *,
    to: str | Path | None,
    units: Any,
    system: str,
    plan: Mapping[str, Any] | None = None,
) -> Store:
    """A store of rows from wherever they come."""
    heads = {name: value.shape[:-1] for name, value in given.items()}
    if not given:
        raise StoreMismatchError("there are no arrays; give at least one [n, d]")
    lead = next(iter(heads.values()))
    if any(shape != lead for shape in heads.values()):
        shown = ", ".join(f"{name!r}: {value.shape}" for name, value in given.items())
        raise StoreMismatchError(f"the arrays have different rows ({shown}); arrays of one store share their first axis (and repeats)")
    n, r = lead[0], lead[1] if len(lead) == 2 else 1
    table, stimulus, repeat, varying = split_repeats(stimulus_table(stimuli, n))
    if len(lead) == 2:
        if len(table) != n:
            raise StimuliError(f"the arrays have an axis of {r} repeats and stimulus ids come back as well; give one or the other")
        stimulus, repeat = np.repeat(np.arange(n), r), np.tile(np.arange(r, dtype=np.int32), n)
    index = RowIndex.of(stimulus, repeat, None, varying)
    tables = _unit_tables(units, {name: value.shape[-1] for name, value in given.items()})
    sites = {
        name: Site(SiteSpec(ROW_SET, value.shape[-1], value.source.dtype), value.source, index, tables.get(name))
        for name, value in given.items()
    }
    return _finished(table, sites, dict(plan or {"source": "arrays"}), to, system)


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
    if isinstance(arrays, (str, Path)) and Path(arrays).suffix == ".npz":
        return dict(map_npz(Path(arrays)))
    return {"X": arrays}


def _given(value: Any, site: str) -> Given:
    """The rows of an array; one that lies in a file is read when it is asked for."""
    if isinstance(value, (str, Path)):
        value = _file(Path(value))
    if stays_on_disk(value) and value.dtype.kind in "fiub" and value.ndim in (2, 3) and value.shape[-1]:
        return Given(tuple(value.shape), ArrayRows(value.reshape(-1, value.shape[-1])))
    tensor = _matrix(value, site)
    return Given(tuple(tensor.shape), TensorRows(tensor.flatten(0, -2)))


def _matrix(value: Any, site: str) -> Tensor:
    """A tensor [n, d] or [n, r, d] of a dtype that a store holds."""
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
    """The array of an `.npy` file, or of a `.safetensors` or `.npz` file with one."""
    if path.suffix == ".npz":
        arrays = map_npz(path)
        if len(arrays) != 1:
            raise StoreMismatchError(f"{path} holds {len(arrays)} arrays ({', '.join(list(arrays)[:5])}); give it alone, not as one site")
        return next(iter(arrays.values()))
    if path.suffix == ".safetensors":
        tensors = _safetensors(path)
        if len(tensors) != 1:
            raise StoreMismatchError(
                f"{path} holds {len(tensors)} tensors ({', '.join(list(tensors)[:5])}); give it alone, not as one site"
            )
        return next(iter(tensors.values()))
    if path.suffix != ".npy":
        raise DegenerateInputError(
            f"{path} is not read: arrays come from .npy, .npz and .safetensors files, tables from Store.from_parquet. "
            "Pickled files (.pkl, .pt, .joblib, …) can run code when they are loaded and are always refused"
        )
    return map_npy(path)


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _unit_tables(units: Any, widths: Mapping[str, int]) -> dict[str, pa.Table]:
    if units is None:
        return {}
    by_site = isinstance(units, Mapping) and set(units) <= set(widths)
    if not by_site and len(widths) > 1:
        raise StoreMismatchError(f"unit tables belong to sites; give units as a dict with the keys {', '.join(map(repr, widths))}")
    tables = units if by_site else {next(iter(widths)): units}
    return {site: units_table(table, widths[site], site) for site, table in tables.items()}


def from_faiss(index: Any, stimuli: Any = None, *, to: str | Path | None = None, site: str = "X", system: str | None = None) -> Store:
    """See `Store.from_faiss`."""
    import faiss

    opened = open_index(index)
    kept = kept_by(opened)
    tell_loss(kept)
    if stimuli is None and kept.ids is not None:
        stimuli = [str(name) for name in kept.ids.tolist()]
    names = {faiss.METRIC_L2: "L2", faiss.METRIC_INNER_PRODUCT: "inner product"}
    vectors = "as added" if kept.exact else "lossy: reconstructed from codes"
    metric = names.get(opened.metric_type, str(opened.metric_type))
    plan = {"source": "faiss", "index": " of ".join(kept.kinds), "metric": metric, "vectors": vectors}
    label = system or (Path(index).stem if isinstance(index, (str, Path)) else "faiss")
    return from_rows({site: Given((kept.n, kept.d), FaissRows(kept))}, stimuli, to=to, units=None, system=label, plan=plan)


def from_parquet(
    path: str | Path | Sequence[str | Path],
    *,
    vector: str | Sequence[str] | None = None,
    columns: str | Sequence[str] | None = None,
    stimulus: str | None = None,
    to: str | Path | None = None,
    system: str | None = None,
) -> Store:
    """See `Store.from_parquet`."""
    files = ParquetFiles(path)
    if stimulus is not None and stimulus != ID:
        files.named([stimulus])
        if ID in files.schema.names:
            raise StimuliError(f"{path} has a column {ID!r} already; drop it or leave stimulus= out")
    vectors = files.named(vector) if vector is not None else [] if columns is not None else files.vectors()
    scalars = files.named(columns) if columns is not None else []
    if not vectors and not scalars:
        raise StimuliError(
            f"{path} has no column of number lists; name numeric columns with columns=: {', '.join(files.schema.names[:12])}"
        )
    rows = {name: ParquetRows(files, [name], lists=True) for name in vectors}
    units: dict[str, Any] = {}
    if scalars:
        rows["X"] = ParquetRows(files, scalars, lists=False)
        units["X"] = {"unit": scalars}
    rest = [name for name in files.schema.names if name not in (*vectors, *scalars)]
    described = files.table(rest) if rest else None
    if described is not None and stimulus is not None:
        described = described.rename_columns([ID if name == stimulus else name for name in rest])
    given: dict[str, Given] = {}
    for name, source in rows.items():
        # Written to a folder, the rows go through memory one row group at a time; without one they stay there.
        given[name] = Given((source.n, source.d), source if to is not None else TensorRows(source.read(0, source.n)))
    return from_rows(given, described, to=to, units=units or None, system=system or files.name)


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

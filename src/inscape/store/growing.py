"""Saving, appending and joining stores."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from inscape.errors import StoreIncompleteError, StoreMismatchError, nearest
from inscape.store.building import from_arrays
from inscape.store.disk import lock_folder, write_shard_files
from inscape.store.files import parquet_bytes, write_file
from inscape.store.index import RowIndex, index_table
from inscape.store.manifest import MANIFEST, STIMULI, ShardEntry, SiteSpec
from inscape.store.opening import open_store
from inscape.store.pairing import REPEATS, pair_rows
from inscape.store.remote import RemotePath, place_of
from inscape.store.remote_writing import put_manifest, put_shard
from inscape.store.sources import ChainedRows, ChosenRows
from inscape.store.store import Site, Store
from inscape.store.tables import ID, content_hash
from inscape.store.view import View
from inscape.store.writer import StoreWriter

SHARD_BYTES = 64 * 2**20


def _indexes(store: Store) -> dict[str, RowIndex]:
    views = [store.view(site) for site in store.sites]
    return {view.row_set: view.index for view in reversed(views)}


def _finished(store: Store, doing: str) -> None:
    if not store.complete:
        raise StoreIncompleteError(f"{store.path or store.system} is incomplete; run the capture again to resume it before {doing}")


def fingerprint(store: Store) -> str:
    """See `Store.fingerprint`."""
    digest = hashlib.sha256(content_hash(store.stimuli).encode())
    for name, index in sorted(_indexes(store).items()):
        digest.update(f"{name} {content_hash(index.table)}".encode())
    for site in store.sites:
        view = store.view(site)
        digest.update(f"{site} {view.row_set} {view.kind} {view.source.fingerprint()}".encode())
    return digest.hexdigest()


def _blocks(store: Store) -> Iterator[tuple[dict[str, pa.Table], dict[str, Tensor]]]:
    """The content of a store in pieces of at most about `SHARD_BYTES` per site."""
    views = {site: store.view(site) for site in store.sites}
    indexes = _indexes(store)
    count = max(1, *(-(-view.nbytes // SHARD_BYTES) for view in views.values()))
    for at in range(count):
        spans = {name: (_rows(index) * at // count, _rows(index) * (at + 1) // count) for name, index in indexes.items()}
        tables = {name: indexes[name].table.slice(start, stop - start) for name, (start, stop) in spans.items()}
        yield tables, {site: view.read(*spans[view.row_set]) for site, view in views.items()}


def _rows(index: RowIndex) -> int:
    return index.table.num_rows


def save(store: Store, to: str | Path) -> Store:
    """See `Store.save`."""
    _finished(store, "saving")
    specs = {site: _spec(store.view(site)) for site in store.sites}
    units = {site: table for site in store.sites if (table := store.units(site)) is not None}
    plan = {**store.manifest.plan, "content": fingerprint(store)}
    with StoreWriter.create_or_resume(to, plan, store.stimuli, specs, units=units, system=store.system) as writer:
        if not writer.complete:
            for number, (tables, values) in enumerate(_blocks(store)):
                if number not in writer.done_shards:
                    writer.write_shard(number, tables, values)
        return writer.finish(store.manifest.notes)


def _spec(view: View) -> SiteSpec:
    return SiteSpec(view.row_set, view.d, view.source.dtype, view.kind)


def append(store: Store, other: Any, stimuli: Any = None, *, as_repeats: bool = False) -> Store:
    """See `Store.append`."""
    _finished(store, "appending")
    extra = other if isinstance(other, Store) else from_arrays(other, stimuli, system=store.system)
    _finished(extra, "appending it")
    _same_sites(store, extra)
    table, numbers, indexes = _merged(store, extra, as_repeats)
    del numbers
    if store.path is not None:
        return _append_on_disk(store, extra, table, indexes)
    both = {name: RowIndex.chained([index, indexes[name]]) for name, index in _indexes(store).items()}
    sites = {
        site: Site(_spec(view), ChainedRows([view.source, extra[site].source]), both[view.row_set], view.unit_table)
        for site, view in ((site, store.view(site)) for site in store.sites)
    }
    return Store(_described(store, table, sites), table, sites)


def _described(store: Store, table: pa.Table, sites: Mapping[str, Site]) -> Any:
    lengths = {entry.spec.row_set: entry.source.n for entry in sites.values()}
    return store.manifest.with_(
        sites={name: entry.spec for name, entry in sites.items()},
        stimuli={"rows": table.num_rows, "sha256": content_hash(table)},
        shards=(ShardEntry({name: (0, n) for name, n in lengths.items()}),),
        units={name: {"sha256": content_hash(entry.units)} for name, entry in sites.items() if entry.units is not None},
    )


def _same_sites(store: Store, extra: Store) -> None:
    if set(store.sites) != set(extra.sites):
        odd = sorted(set(store.sites) ^ set(extra.sites))
        raise StoreMismatchError(
            f"the sites differ: {', '.join(map(repr, odd[:5]))} on one side only (nearest here: {nearest(odd[0], store.sites)}); "
            "append takes the same sites"
        )
    for site in store.sites:
        ours, theirs = _spec(store.view(site)), _spec(extra.view(site))
        if (ours.d, ours.dtype, ours.kind) != (theirs.d, theirs.dtype, theirs.kind):
            raise StoreMismatchError(
                f"site {site!r} has {ours.kind} rows of {ours.d} units in {ours.dtype} here, and {theirs.kind} rows of {theirs.d} units in "
                f"{theirs.dtype} in what is appended; convert it first"
            )
        if len({extra.view(name).row_set for name in store.sites if store.view(name).row_set == ours.row_set}) != 1:
            raise StoreMismatchError(f"sites that share the row set {ours.row_set!r} here have several row sets in what is appended")


def _merged(store: Store, extra: Store, as_repeats: bool) -> tuple[pa.Table, np.ndarray, dict[str, RowIndex]]:
    """The longer stimuli table, and the appended index of each of our row sets in its numbering."""
    ours = {name: at for at, name in enumerate(store.stimuli[ID].to_pylist())}
    theirs: list[str] = extra.stimuli[ID].to_pylist()
    known = [name for name in theirs if name in ours]
    if known and not as_repeats:
        raise StoreMismatchError(
            f"{len(known)} of {len(theirs)} stimulus ids are in {store.system} already ({', '.join(map(repr, known[:3]))}): "
            "give other ids with stimuli=, or as_repeats=True when they are further repeats"
        )
    own_columns = {name for index in _indexes(store).values() for name in index.columns}
    moved = [name for name in extra.stimuli.column_names if name in own_columns and name not in store.stimuli.column_names]
    fresh = extra.stimuli.drop_columns(moved) if moved else extra.stimuli
    odd = sorted(set(fresh.column_names) ^ set(store.stimuli.column_names))
    if odd:
        raise StoreMismatchError(
            f"the stimuli have other columns: {', '.join(map(repr, odd[:5]))} on one side only; give the same columns, filled or empty"
        )
    fresh = fresh.select(store.stimuli.column_names)
    try:
        fresh = fresh.cast(store.stimuli.schema)
    except pa.ArrowException as error:
        raise StoreMismatchError(f"a column of the appended stimuli has another type: {error}") from error
    _same_facts(store.stimuli, fresh, ours, theirs)
    new = np.asarray([at for at, name in enumerate(theirs) if name not in ours], np.int64)
    table = pa.concat_tables([store.stimuli, fresh.take(pa.array(new))]).combine_chunks()
    numbers = np.asarray([ours.get(name, -1) for name in theirs], np.int64)
    numbers[new] = store.stimuli.num_rows + np.arange(len(new))
    offset = np.zeros(table.num_rows, np.int32)  # repeats go on where those of the same stimulus ended, over all row sets
    for index in _indexes(store).values():
        np.maximum.at(offset, index.stimulus, index.repeat + 1)
    indexes: dict[str, RowIndex] = {}
    for site in store.sites:
        view = extra.view(site)
        columns = view.index.table.drop_columns(["stimulus", "repeat", "position"])
        for name in moved:
            columns = columns.append_column(name, extra.stimuli[name].take(pa.array(view.stimulus)))
        stimulus = numbers[view.stimulus]
        indexes[store.view(site).row_set] = RowIndex.of(stimulus, view.repeat + offset[stimulus], view.position, columns)
    return table, numbers, indexes


def _same_facts(ours: pa.Table, fresh: pa.Table, known: Mapping[str, int], ids: list[str]) -> None:
    """Refuses further repeats whose columns contradict the stimulus that is already there."""
    pairs = [(known[name], at) for at, name in enumerate(ids) if name in known]
    if not pairs:
        return
    left, right = (pa.array([pair[side] for pair in pairs]) for side in (0, 1))
    for name in ours.column_names:
        values = zip(ours[name].take(left).to_pylist(), fresh[name].take(right).to_pylist(), strict=True)
        for (_, at), (old, new) in zip(pairs, values, strict=True):
            if old != new and not (old != old and new != new):
                raise StoreMismatchError(
                    f"stimulus {ids[at]!r} has {name} = {old!r} here and {new!r} in what is appended; one stimulus has one value. "
                    "A column that changes from repeat to repeat must have done so when the store was made"
                )


def _append_on_disk(store: Store, extra: Store, table: pa.Table, indexes: Mapping[str, RowIndex]) -> Store:
    root = place_of(str(store.path))
    lock = None if isinstance(root, RemotePath) else lock_folder(root)
    here = Path(tempfile.mkdtemp(prefix="inscape-")) if isinstance(root, RemotePath) else root
    try:
        manifest = store.manifest
        names = {view.row_set: store.view(site).row_set for site, view in ((site, extra.view(site)) for site in store.sites)}
        at = dict.fromkeys(indexes, 0)
        # The longer stimuli table comes first and the manifest last: until then the folder reads as it did before.
        write_file(here / STIMULI, parquet_bytes(table))
        if isinstance(root, RemotePath):
            (root / STIMULI).put(here / STIMULI)
        for _, values in _blocks(extra):
            counts = {names[extra.view(site).row_set]: len(value) for site, value in values.items()}
            tables = {name: index_table(indexes[name].table.slice(at[name], n), name) for name, n in counts.items()}
            spans = {name: (manifest.rows(name), manifest.rows(name) + n) for name, n in counts.items()}
            at = {name: at[name] + n for name, n in counts.items()}
            shard = (manifest.sites, tables, values, ShardEntry(spans))
            entry = put_shard(root, here, *shard) if isinstance(root, RemotePath) else write_shard_files(here, *shard)
            manifest = manifest.with_(shards=(*manifest.shards, entry))
        plan = {**manifest.plan, "appended": [*manifest.plan.get("appended", []), fingerprint(extra)]}
        manifest = manifest.with_(plan=plan, stimuli={"rows": table.num_rows, "sha256": content_hash(table)})
        if isinstance(root, RemotePath):
            put_manifest(root, here, manifest)
        else:
            write_file(here / MANIFEST, manifest.to_json())
    finally:
        if lock is not None:
            os.close(lock)
        if isinstance(root, RemotePath):
            shutil.rmtree(here, ignore_errors=True)
    return open_store(str(store.path))


def join(a: Store, b: Store, *, repeats: str | None = None, on: str = "all") -> Store:
    """See `Store.join`."""
    if repeats is not None and repeats not in REPEATS:
        raise StoreMismatchError(f"repeats={repeats!r} is unknown: choose one of {', '.join(map(repr, REPEATS))}")
    heads_a, heads_b = _by_kind(a), _by_kind(b)
    if set(heads_a) != set(heads_b):
        raise StoreMismatchError(
            f"{a.system} has {', '.join(sorted(heads_a))} rows and {b.system} has {', '.join(sorted(heads_b))} rows; "
            "join stores with the same kinds of row, or select sites first"
        )
    rows: dict[str, Any] = {}
    indexes: dict[str, RowIndex] = {}
    for kind in heads_a:
        left, right = (_averaged(store.view(heads[kind]), repeats) for store, heads in ((a, heads_a), (b, heads_b)))
        rows[kind] = pair_rows(left, right, repeats=None if repeats == "mean" else repeats, on=on)
        indexes[kind] = _joined_index(left, right, *rows[kind], pairs=repeats == "all")
    used = np.unique(np.concatenate([index.stimulus for index in indexes.values()]))
    renumber = np.full(a.stimuli.num_rows, -1, np.int64)
    renumber[used] = np.arange(len(used))
    indexes = {kind: index.renumbered(renumber) for kind, index in indexes.items()}
    stimuli = _joined_stimuli(a.stimuli.take(pa.array(used)), b.stimuli)
    clash = set(a.sites) & set(b.sites)
    if clash and a.system == b.system:
        raise StoreMismatchError(f"both stores are called {a.system!r} and have the site {min(clash)!r}; open one under another label")
    sites: dict[str, Site] = {}
    for side, store in enumerate((a, b)):
        for site in store.sites:
            view = _averaged(store.view(site), repeats)
            chosen = rows[view.kind][side]
            source = view.source if chosen is None else ChosenRows(view.source, chosen)
            spec = replace(_spec(view), row_set=a.view(heads_a[view.kind]).row_set)
            name = f"{store.system}/{site}" if site in clash else site
            sites[name] = Site(spec, source, indexes[view.kind], view.unit_table)
    parts = {"joined": [store.manifest.plan for store in (a, b)], "repeats": repeats, "on": on}
    manifest = _described(a, stimuli, sites).with_(system=f"{a.system}+{b.system}", plan=parts, notes={})
    return Store(manifest.with_(complete=a.complete and b.complete), stimuli, sites)


def _by_kind(store: Store) -> dict[str, str]:
    """One site per kind of row."""
    heads: dict[str, str] = {}
    for site in store.sites:
        view = store.view(site)
        head = heads.setdefault(view.kind, site)
        if store.view(head).index is not view.index:
            raise StoreMismatchError(
                f"{store.system} has several row sets of {view.kind} rows ({head!r}, {site!r}); select sites of one first"
            )
    return heads


def _averaged(view: View, repeats: str | None) -> View:
    return view.mean_over_repeats() if repeats == "mean" else view


def _joined_index(left: View, right: View, rows_a: Any, rows_b: Any, *, pairs: bool) -> RowIndex:
    ours, theirs = (
        view.index.table if rows is None else view.index.table.take(pa.array(rows)) for view, rows in ((left, rows_a), (right, rows_b))
    )
    columns = ours.drop_columns(["stimulus", "repeat", "position"])
    for name in right.index.columns:
        if name not in columns.column_names:
            columns = columns.append_column(name, theirs[name])
    stimulus, repeat, position = (ours[name].to_numpy() for name in ("stimulus", "repeat", "position"))
    if pairs:  # every pair of repeats is a repeat of its own
        order = np.lexsort((np.arange(len(stimulus)), position, stimulus))
        fresh = np.r_[True, (np.diff(stimulus[order]) != 0) | (np.diff(position[order]) != 0)]
        starts = np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))
        repeat = np.empty(len(order), np.int32)
        repeat[order] = np.arange(len(order)) - starts
    return RowIndex.of(stimulus, repeat, position, columns)


def _joined_stimuli(ours: pa.Table, theirs: pa.Table) -> pa.Table:
    """Our stimuli with the columns that only the other store has."""
    at = {name: row for row, name in enumerate(theirs[ID].to_pylist())}
    rows = pa.array([at[name] for name in ours[ID].to_pylist()], pa.int64())
    for name in theirs.column_names:
        if name not in ours.column_names:
            ours = ours.append_column(name, theirs[name].take(rows))
    return ours.combine_chunks()

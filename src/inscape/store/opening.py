"""Opening a store that is on disk."""

from __future__ import annotations

from functools import partial as later
from pathlib import Path

from inscape.errors import StoreCorruptError
from inscape.store.files import restore_hint
from inscape.store.index import RowIndex
from inscape.store.manifest import MANIFEST, Manifest
from inscape.store.reading import file_of, read_index, read_manifest, read_stimuli, read_units
from inscape.store.remote import Place, RemotePath, place_of
from inscape.store.remote_rows import Blocks, RemoteRows
from inscape.store.shards import Maps, ShardFile
from inscape.store.sources import ShardRows, Source, UnfinishedRows
from inscape.store.staging import so_far, waiting_for
from inscape.store.store import Site, Store


def open_store(path: str | Path, *, partial: bool = False, verify: bool = False) -> Store:
    """Opens a store; nothing but the manifest and the stimuli is read.

    Args:
        path: the folder, or an address that fsspec knows (`s3://bucket/run`, `memory://run`, `file:///run`).
        partial: allow reading the finished shards of an incomplete store.
        verify: check each file's checksum too, not only its size, before anything of it is used.

    Raises:
        StoreCorruptError: there is no store, or a file is damaged (the message names it).
        StoreMismatchError: the store has another format version, or there is no such kind of address.
        MissingExtraError: the package for this kind of address is not installed.

    Example:
        >>> store = inscape.open("runs/gpt2")
        >>> store["blocks.6.resid_post"].shape
    """
    root = place_of(path)
    if isinstance(root, RemotePath):
        root.forget()
    manifest, waiting = read_manifest(root), ""
    if isinstance(root, Path):
        manifest = so_far(root, manifest)
        waiting = waiting_for(root, manifest)
    stimuli = read_stimuli(root, manifest)
    resume = f"It is written in parts: {waiting}" if waiting else "Run the capture again to resume"
    total = sum(facts["bytes"] for entry in manifest.shards for facts in entry.files.values())
    maps, blocks = Maps(total), Blocks()
    indexes, sites = dict[str, RowIndex](), dict[str, Site]()
    for name, spec in manifest.sites.items():
        shards = _shards(root, manifest, name, verify=verify)
        source: Source
        if isinstance(root, RemotePath):
            source = RemoteRows(shards, spec.d, str(spec.dtype), blocks)
        else:
            source = ShardRows(shards, spec.d, str(spec.dtype), maps)
        if not manifest.complete and not partial:
            source = UnfinishedRows(
                source,
                f"{root} is incomplete: {len(manifest.shards)} shards are finished. {resume}, "
                "or read what there is with inscape.open(path, partial=True)",
            )
        index = indexes.setdefault(spec.row_set, read_index(root, manifest, spec.row_set))
        units = later(read_units, root, manifest, name) if name in manifest.units else None
        sites[name] = Site(spec, source, index, units)
    return Store(manifest, stimuli, sites, path=str(root))


def _shards(root: Place, manifest: Manifest, site: str, *, verify: bool) -> list[ShardFile]:
    spec = manifest.sites[site]
    shards: list[ShardFile] = []
    for number, entry in enumerate(manifest.shards):
        first, stop = entry.rows.get(spec.row_set, (0, -1))
        file = file_of(entry, "shards", site, first)
        if stop < first or (stop > first and file not in entry.files):
            raise StoreCorruptError(f"{root / MANIFEST} lists no file of {site!r} for shard {number}; {restore_hint()}")
        if stop > first:
            facts = entry.files[file]
            shards.append(ShardFile(root / file, facts, n=stop - first, d=spec.d, dtype=str(spec.dtype), checksum=verify))
    return shards

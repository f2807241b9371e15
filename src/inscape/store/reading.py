"""Reading the pieces of a store's folder, each checked against the manifest."""

from __future__ import annotations

import pyarrow as pa

from inscape.errors import StoreCorruptError, nearest
from inscape.store.files import check_file, read_parquet, restore_hint, safe_name
from inscape.store.growing_stimuli import read_parts
from inscape.store.index import RowIndex, empty_index
from inscape.store.manifest import MANIFEST, STIMULI, Manifest, ShardEntry
from inscape.store.remote import Place
from inscape.store.tables import content_hash


def read_manifest(root: Place) -> Manifest:
    """The manifest of a folder.

    Raises:
        StoreCorruptError: there is none, or it is not readable.
    """
    path = root / MANIFEST
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        what = "has no manifest.json, so it is no store" if root.exists() else "does not exist"
        around = sorted(found.parent.name for found in root.parent.glob(f"*/{MANIFEST}")) if root.parent.exists() else []
        raise StoreCorruptError(f"{root} {what}; stores beside it: {nearest(root.name, around)}") from None
    return Manifest.from_json(data, path)


def read_stimuli(root: Place, manifest: Manifest) -> pa.Table:
    """The stimuli table, checked; a longer file is one that an unfinished append has already extended."""
    if manifest.growing:
        return read_parts(root, manifest)
    path = root / STIMULI
    if not path.exists():
        raise StoreCorruptError(f"{path} is missing; {restore_hint()}")
    table = read_parquet(path).slice(0, manifest.stimuli["rows"]).combine_chunks()
    if content_hash(table) != manifest.stimuli["sha256"]:
        raise StoreCorruptError(f"{path} was altered: its content is not what the manifest says; {restore_hint()}")
    return table


def read_units(root: Place, manifest: Manifest, site: str) -> pa.Table:
    """The unit table of a site, checked."""
    path = root / "units" / f"{safe_name(site)}.parquet"
    check_file(path, manifest.units[site]["file"], checksum=True)
    return read_parquet(path)


def read_index(root: Place, manifest: Manifest, row_set: str) -> RowIndex:
    """The index of a row set, loaded and checked when first asked for."""

    def load() -> pa.Table:
        parts: list[pa.Table] = []
        for entry in manifest.shards:
            first, stop = entry.rows[row_set]
            if stop > first:
                name = file_of(entry, "rows", row_set, first)
                check_file(root / name, entry.files[name], checksum=True)
                parts.append(read_parquet(root / name))
        return pa.concat_tables(parts, promote_options="default") if parts else empty_index()

    return RowIndex(load)


def file_of(entry: ShardEntry, folder: str, name: str, first: int) -> str:
    """Where a shard's file lies: the rows of a row set or the values of a site, from row `first` on, or where it waits for other parts."""
    end = "parquet" if folder == "rows" else "safetensors"
    plain = f"{folder}/{safe_name(name)}/{first}.{end}"
    if plain in entry.files:
        return plain
    return next((file for file in entry.files if file.endswith(f"/{folder}/{safe_name(name)}.{end}")), plain)

"""Writing a store into a folder, shard by shard."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import Tensor

from inscape.errors import StoreCorruptError, StoreIncompleteError, StoreMismatchError
from inscape.store.files import TEMPORARY, check_file, parquet_bytes, publish, safe_name, write_file, write_temporary
from inscape.store.growing_stimuli import count_stimuli
from inscape.store.manifest import ABSENT, MANIFEST, STIMULI, Manifest, ShardEntry, SiteSpec, differences, plain
from inscape.store.opening import open_store
from inscape.store.reading import read_manifest, read_stimuli
from inscape.store.remote import Place
from inscape.store.shards import shard_parts
from inscape.store.staging import PARTS, STAGING, waiting_for
from inscape.store.store import Store
from inscape.store.writer import StoreWriter

_OWN_FILE = re.compile(r"\d+\.(safetensors|parquet)")


class DiskWriter(StoreWriter):
    """Writes the shards into a folder, which it locks."""

    def __init__(self, path: Path, manifest: Manifest, stimuli: pa.Table, units: dict[str, pa.Table]) -> None:
        super().__init__(manifest, stimuli, units)
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = lock_folder(path)
        try:
            if (path / MANIFEST).exists():
                self._resume()
            else:
                self._put(begin_folder(path, manifest, stimuli, units))
        except BaseException:
            self.close()
            raise

    def _resume(self) -> None:
        found = read_manifest(self.path)
        check_same_plan(self.path, found, self.manifest)
        if PARTS in found.notes:
            raise StoreMismatchError(f"{self.path} is written in parts: {waiting_for(self.path, found)}")
        kept = 0
        for kept, entry in enumerate(found.shards, 1):
            try:
                for name, facts in entry.files.items():
                    check_file(self.path / name, facts, checksum=False)
            except StoreCorruptError:
                if found.complete:
                    raise
                kept -= 1
                break
        self.manifest = cut(found, kept)
        if self.growing is not None:
            self.growing.resume(self.path, self.manifest)
        else:
            self.stimuli = read_stimuli(self.path, found)
        clean_folder(self.path, self.manifest)

    def _put(self, manifest: Manifest) -> None:
        write_file(self.path / MANIFEST, manifest.to_json())
        self.manifest = manifest

    def _store_shard(self, tables: dict[str, pa.Table], values: Mapping[str, Tensor], entry: ShardEntry) -> None:
        stimuli = {} if self.growing is None else self.growing.files()
        self._put(self._with(write_shard_files(self.path, self.manifest.sites, tables, values, entry, extra=stimuli)))

    def _opened(self) -> Store:
        self.close()
        return open_store(self.path)

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def begin_folder(path: Path, manifest: Manifest, stimuli: pa.Table, units: Mapping[str, pa.Table]) -> Manifest:
    """Writes what does not depend on the rows into a new folder; returns the manifest to be written last.

    Raises:
        StoreMismatchError: the folder holds something else.
    """
    own = (STIMULI, "stimuli", "rows", "shards", "units", STAGING)
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in own and not entry.name.startswith(TEMPORARY))
    if foreign:
        raise StoreMismatchError(
            f"{path} holds {len(foreign)} files that belong to no store ({', '.join(foreign[:3])}); give an empty or a new folder"
        )
    clean_folder(path, manifest)
    if not manifest.growing:
        write_file(path / STIMULI, parquet_bytes(stimuli))
    facts: dict[str, dict[str, Any]] = {}
    for site, table in units.items():
        written = write_file(path / "units" / f"{safe_name(site)}.parquet", parquet_bytes(table))
        facts[site] = {"sha256": manifest.units[site]["sha256"], "file": written}
    return manifest.with_(units=facts)


def check_same_plan(path: Place, found: Manifest, wanted: Manifest) -> None:
    """Refuses a folder whose store was begun with another plan, naming what differs.

    Raises:
        StoreMismatchError: it was.
    """
    ours, theirs = _identity(wanted), _identity(found)
    changed = differences(theirs, ours)
    if list(theirs["sites"]) != list(ours["sites"]) and not changed:
        changed = [("sites (their order)", list(theirs["sites"]), list(ours["sites"]))]
    if changed:
        shown = "; ".join(f"{name} was {_brief(was)}, now is {_brief(now)}" for name, was, now in changed[:5])
        more = f" (and {len(changed) - 5} more)" if len(changed) > 5 else ""
        raise StoreMismatchError(
            f"{path} holds a store of another plan: {shown}{more}. Give another folder, or the settings it was begun with"
        )


def clean_folder(path: Path, manifest: Manifest) -> None:
    """Removes what a killed run left: temporary files, shards that the manifest does not list, and the staging of finished parts."""
    listed = {name for entry in manifest.shards for name in entry.files}
    for pattern in (f"{TEMPORARY}*", f"units/{TEMPORARY}*", "stimuli/*", "rows/*/*", "shards/*/*"):
        for file in path.glob(pattern):
            ours = file.name.startswith(TEMPORARY) or _OWN_FILE.fullmatch(file.name)
            if ours and file.is_file() and file.relative_to(path).as_posix() not in listed:
                file.unlink()
    if PARTS not in manifest.notes:
        shutil.rmtree(path / STAGING, ignore_errors=True)


def plain_name(folder: str, name: str, first: int) -> str:
    """Where a finished shard's file lies: the rows of a row set, or the values of a site, from row `first` on."""
    return f"{folder}/{safe_name(name)}/{first}.{'parquet' if folder == 'rows' else 'safetensors'}"


def write_shard_files(
    root: Path,
    sites: Mapping[str, SiteSpec],
    tables: Mapping[str, pa.Table],
    values: Mapping[str, Tensor],
    entry: ShardEntry,
    name: Callable[[str, str, int], str] = plain_name,
    extra: Mapping[str, bytes] | None = None,
) -> ShardEntry:
    """Writes the files of one shard, all or none; they count once the manifest lists the entry that is returned."""
    files: dict[str, dict[str, Any]] = {}
    try:
        for file, data in (extra or {}).items():
            files[file] = write_temporary(root / file, [data])
        # A row set without rows has no file: its first row is also that of the next shard.
        for row_set, table in tables.items():
            if table.num_rows:
                file = name("rows", row_set, entry.rows[row_set][0])
                files[file] = write_temporary(root / file, [parquet_bytes(table)])
        for site, spec in sites.items():
            if tables[spec.row_set].num_rows:
                file = name("shards", site, entry.rows[spec.row_set][0])
                files[file] = write_temporary(root / file, shard_parts(values[site], site))
    except BaseException:
        for file in files:
            path = root / file
            path.with_name(TEMPORARY + path.name).unlink(missing_ok=True)
        raise
    publish(root / file for file in files)
    return ShardEntry(entry.rows, files, entry.notes)


def cut(manifest: Manifest, kept: int) -> Manifest:
    """The manifest with its first shards alone, and the stimuli that came with those."""
    if kept == len(manifest.shards):
        return manifest
    shorter = manifest.with_(shards=manifest.shards[:kept])
    rows = count_stimuli(manifest.shards[kept]) if manifest.growing else 0
    return shorter.with_(stimuli={**manifest.stimuli, "rows": rows}) if manifest.growing else shorter


def _identity(manifest: Manifest) -> dict[str, Any]:
    units = {site: facts["sha256"] for site, facts in manifest.units.items()}
    sites = {name: plain(vars(spec)) for name, spec in manifest.sites.items()}
    stimuli = {"by_shard": True} if manifest.growing else manifest.stimuli
    return {**manifest.plan, "stimuli": stimuli, "sites": sites, "units": units}


def _brief(value: Any) -> str:
    text = ABSENT if value == ABSENT else repr(value)
    return text if len(text) <= 120 else text[:119] + "…"


def lock_folder(path: Path, what: str = "") -> int | None:
    """Takes the folder (or file) for one writer; the system gives it back when the process ends, however it ends.

    Raises:
        StoreIncompleteError: another process is writing there.
    """
    try:
        import fcntl
    except ImportError:  # Windows cannot lock a folder
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreIncompleteError(f"another process is writing {what or path}; wait for it, or give another folder") from error
    return descriptor

"""Writing a store behind an address: every shard is made here, sent, and counts once the manifest there lists it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import Tensor

from inscape.errors import StoreCorruptError, StoreMismatchError
from inscape.store.disk import begin_folder, check_same_plan, cut, write_shard_files
from inscape.store.files import check_file
from inscape.store.manifest import MANIFEST, STIMULI, Manifest, ShardEntry
from inscape.store.opening import open_store
from inscape.store.reading import read_manifest, read_stimuli
from inscape.store.remote import TEMPORARY, RemotePath
from inscape.store.staging import PARTS
from inscape.store.store import Store
from inscape.store.writer import StoreWriter

_OWN = re.compile(rf"({STIMULI})|units/[^/]+\.parquet|stimuli/\d+\.parquet|rows/[^/]+/\d+\.parquet|shards/[^/]+/\d+\.safetensors")


class RemoteWriter(StoreWriter):
    """Writes shards into a folder behind an address. Nothing locks it: one process at a time may write there."""

    def __init__(self, root: RemotePath, manifest: Manifest, stimuli: pa.Table, units: dict[str, pa.Table]) -> None:
        super().__init__(manifest, stimuli, units)
        self.root = root
        self._here: Path | None = Path(tempfile.mkdtemp(prefix="inscape-"))
        root.forget()
        try:
            if (root / MANIFEST).exists():
                self._resume()
            else:
                self._begin()
        except BaseException:
            self.close()
            raise

    @property
    def here(self) -> Path:
        """Where files are made before they are sent."""
        if self._here is None:
            raise StoreMismatchError(f"the writer of {self.root} is closed; make another with StoreWriter.create_or_resume")
        return self._here

    def _begin(self) -> None:
        there = self.root.walk()
        foreign = [name for name in there if not (_OWN.fullmatch(name) or name.rpartition("/")[2].startswith(TEMPORARY))]
        if foreign:
            raise StoreMismatchError(
                f"{self.root} holds {len(foreign)} files that belong to no store ({', '.join(foreign[:3])}); give an empty or a new folder"
            )
        manifest = begin_folder(self.here, self.manifest, self.stimuli, self.units)
        made = {file.relative_to(self.here).as_posix() for file in self.here.rglob("*") if file.is_file()}
        for name in there:
            if name not in made:
                (self.root / name).remove()
        for name in sorted(made):
            _send(self.root, self.here, name)
        self._put(manifest)

    def _resume(self) -> None:
        found = read_manifest(self.root)
        check_same_plan(self.root, found, self.manifest)
        if PARTS in found.notes and not found.complete:
            raise StoreMismatchError(f"{self.root} is written in parts, which only local folders can be; go on in the folder it came from")
        kept = 0
        for kept, entry in enumerate(found.shards, 1):
            try:
                for name, facts in entry.files.items():
                    check_file(self.root / name, facts, checksum=False)
            except StoreCorruptError:
                if found.complete:
                    raise
                kept -= 1
                break
        self.manifest = cut(found, kept)
        if self.growing is not None:
            self.growing.resume(self.root, self.manifest)
        else:
            self.stimuli = read_stimuli(self.root, found)
        listed = {name for entry in self.manifest.shards for name in entry.files}
        for name in self.root.walk():
            loose = name.startswith(("rows/", "shards/", "stimuli/")) and _OWN.fullmatch(name) and name not in listed
            if loose or name.rpartition("/")[2].startswith(TEMPORARY):
                (self.root / name).remove()

    def _put(self, manifest: Manifest) -> None:
        put_manifest(self.root, self.here, manifest)
        self.manifest = manifest

    def _store_shard(self, tables: dict[str, pa.Table], values: Mapping[str, Tensor], entry: ShardEntry) -> None:
        stimuli = {} if self.growing is None else self.growing.files()
        self._put(self._with(put_shard(self.root, self.here, self.manifest.sites, tables, values, entry, extra=stimuli)))

    def _opened(self) -> Store:
        self.close()
        return open_store(str(self.root))

    def close(self) -> None:
        """Removes what was made here."""
        if self._here is not None:
            shutil.rmtree(self._here, ignore_errors=True)
            self._here = None


def put_manifest(root: RemotePath, here: Path, manifest: Manifest) -> None:
    """Sends a manifest, which replaces the one there as a whole."""
    (here / MANIFEST).write_bytes(manifest.to_json())
    (root / MANIFEST).put(here / MANIFEST)


def put_shard(root: RemotePath, here: Path, *shard: Any, extra: Mapping[str, bytes] | None = None) -> ShardEntry:
    """Makes the files of one shard in the folder `here` (see `write_shard_files`) and sends them."""
    written = write_shard_files(here, *shard, extra=extra)
    for name in written.files:
        _send(root, here, name)
    return written


def _send(root: RemotePath, here: Path, name: str) -> None:
    (root / name).put(here / name)
    (here / name).unlink()

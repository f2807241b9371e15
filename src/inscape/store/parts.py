"""Several processes write one store: each its own shards, and whichever ends last puts them together."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import Tensor

from inscape.errors import StoreCorruptError, StoreIncompleteError, StoreMismatchError
from inscape.store.disk import begin_folder, check_same_plan, clean_folder, lock_folder, plain_name, write_shard_files
from inscape.store.files import check_file, sync_folder, write_file
from inscape.store.manifest import MANIFEST, Manifest, ShardEntry, plain
from inscape.store.opening import open_store
from inscape.store.reading import read_manifest, read_stimuli
from inscape.store.staging import (
    PARTS,
    STAGING,
    Staged,
    entries,
    notes_path,
    read_json,
    record_path,
    shards_of,
    staged_name,
    staged_shards,
    to_json,
)
from inscape.store.store import Store
from inscape.store.writer import StoreWriter

# Beginning a folder and putting a store together take seconds; whoever holds the folder longer is no part.
PATIENCE = 600.0
# While this file is there, all shards are finished and get the names they have in the store.
_WHOLE = f"{STAGING}/whole.json"


class PartWriter(StoreWriter):
    """Writes one part's shards. Each waits in the folder `parts`, with a record of its own, until the store is whole."""

    def __init__(
        self, path: Path, manifest: Manifest, stimuli: pa.Table, units: dict[str, pa.Table], part: tuple[int, int], shards: int
    ) -> None:
        super().__init__(manifest, stimuli, units)
        self.path, self.part, self.shards = path, part, shards
        self.own = shards_of(part, shards)
        self._done: dict[int, Staged] = {}
        self._notes: dict[str, Any] = {}
        self._lock: int | None = None
        path.mkdir(parents=True, exist_ok=True)
        folder = self._folder()
        try:
            self._begin(manifest, units)
        except BaseException:
            self.close()
            raise
        finally:
            _release(folder)

    def _folder(self) -> int | None:
        """The lock on the whole folder, which parts hold for a moment at the beginning and at the end."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return lock_folder(self.path)
            except StoreIncompleteError:
                if (self.path / MANIFEST).exists():
                    self._check(read_manifest(self.path))
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def _check(self, found: Manifest) -> None:
        """Refuses a folder that was begun in another way."""
        check_same_plan(self.path, found, self.manifest)
        if found.complete:
            return
        if PARTS not in found.notes:
            raise StoreMismatchError(
                f"{self.path} was begun as a whole, so part {self._name()} would write what that run writes; leave part=... out to "
                "resume it, or give another folder"
            )
        begun = found.notes[PARTS]
        if begun != self._cut():
            raise StoreMismatchError(
                f"{self.path} is written in {begun['count']} parts of {begun['shards']} shards altogether; part {self._name()} of "
                f"{self.shards} shards contradicts that. Give one of its parts, '1/{begun['count']}' to '{begun['count']}/{begun['count']}'"
            )

    def _begin(self, manifest: Manifest, units: dict[str, pa.Table]) -> None:
        if (self.path / MANIFEST).exists():
            found = read_manifest(self.path)
            self._check(found)
            self.stimuli = read_stimuli(self.path, found)
            self.manifest = found
            if found.complete:
                clean_folder(self.path, found)
                return
        else:
            self.manifest = begin_folder(self.path, manifest.with_(notes={PARTS: self._cut()}), self.stimuli, units)
            write_file(self.path / MANIFEST, self.manifest.to_json())
        own = self.path / STAGING / f"part-{self.part[0]}.lock"
        own.parent.mkdir(exist_ok=True)
        own.touch()
        self._lock = lock_folder(own, f"part {self._name()} of {self.path}")
        self._resume()

    def _resume(self) -> None:
        """Keeps this part's finished shards up to the first that is missing or damaged; what lies beyond is removed."""
        notes = notes_path(self.path, self.part[0])
        self._notes = read_json(notes) if notes.exists() else {}
        found = dict(staged_shards(self.path, self.own))
        if (self.path / _WHOLE).exists():  # a run was killed while it put the finished shards together
            self._done = found
            return
        for shard in self.own:
            if shard not in found or not self._sound(found[shard]):
                break
            self._done[shard] = found[shard]
        for shard in self.own:
            if shard not in self._done:
                record_path(self.path, shard).unlink(missing_ok=True)
                shutil.rmtree(self.path / STAGING / str(shard), ignore_errors=True)

    def _sound(self, shard: Staged) -> bool:
        try:
            for name, facts in shard.files.items():
                check_file(self.path / name, facts, checksum=False)
        except StoreCorruptError:
            return False
        return True

    def _cut(self) -> dict[str, int]:
        return {"count": self.part[1], "shards": self.shards}

    def _name(self) -> str:
        return f"{self.part[0]}/{self.part[1]}"

    @property
    def done_shards(self) -> set[int]:
        """Numbers of this part's shards that are finished."""
        return set(self._done)

    @property
    def next_shard(self) -> int:
        """Number of the shard to be written next."""
        return self.own.start + len(self._done)

    def first_row(self, row_set: str) -> int:
        """Rows are counted within a shard until the store is whole."""
        return 0

    @property
    def notes(self) -> dict[str, Any]:
        """What this part recorded so far, also in the runs before this one."""
        return dict(self.manifest.notes) if self.complete else dict(self._notes)

    def record(self, **notes: Any) -> None:
        """Keeps facts about this part at once."""
        self._notes = {**self._notes, **plain(notes)}
        write_file(notes_path(self.path, self.part[0]), to_json(self._notes))

    def _store_shard(self, tables: dict[str, pa.Table], values: Mapping[str, Tensor], entry: ShardEntry) -> None:
        shard = self.next_shard
        if shard not in self.own:
            raise StoreMismatchError(f"shard {shard} is not one of part {self._name()}, which has {self.own.start} to {self.own.stop - 1}")
        sites = self.manifest.sites
        written = write_shard_files(self.path, sites, tables, values, entry, lambda folder, name, first: staged_name(shard, folder, name))
        staged = Staged({name: stop for name, (_, stop) in entry.rows.items()}, written.files, written.notes)
        write_file(record_path(self.path, shard), to_json(vars(staged)))
        self._done[shard] = staged

    def finish(self, notes: Mapping[str, Any] | None = None) -> Store:
        """Puts the store together when this was the last part to end; opens it, whole or not."""
        if notes:
            self.record(**notes)
        folder = self._folder()
        try:
            found = read_manifest(self.path)
            if not found.complete:
                every = [staged for _, staged in staged_shards(self.path, range(self.shards))]
                if len(every) == self.shards:
                    self._put_together(found, every)
        finally:
            _release(folder)
        return self._opened()

    def _put_together(self, manifest: Manifest, every: list[Staged]) -> None:
        """Gives each file the name it has in the store, then lists them all in the manifest; killed inside, it is done again."""
        write_file(self.path / _WHOLE, b"{}\n")
        made: list[ShardEntry] = []
        folders: dict[Path, None] = {}
        for shard, entry in enumerate(entries(every)):
            files: dict[str, dict[str, Any]] = {}
            for folder, names in (("rows", entry.rows), ("shards", manifest.sites)):
                for name in names:
                    row_set = name if folder == "rows" else manifest.sites[name].row_set
                    waiting, final = staged_name(shard, folder, name), plain_name(folder, name, entry.rows[row_set][0])
                    if waiting not in entry.files:  # a row set without rows has no file
                        continue
                    target = self.path / final
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if (self.path / waiting).exists():
                        os.replace(self.path / waiting, target)
                    files[final] = entry.files[waiting]
                    check_file(target, files[final], checksum=False)
                    folders[target.parent] = None
            made.append(ShardEntry(entry.rows, files, entry.notes))
        for folder in folders:
            sync_folder(folder)
        whole = manifest.with_(shards=tuple(made), notes=self._merged(), complete=True)
        write_file(self.path / MANIFEST, whole.to_json())
        self.manifest = whole
        clean_folder(self.path, whole)

    def _merged(self) -> dict[str, Any]:
        """What the parts noted: lists one after the other, anything else from the first part that has it."""
        merged: dict[str, Any] = {}
        for k in range(1, self.part[1] + 1):
            path = notes_path(self.path, k)
            for name, value in (read_json(path) if path.exists() else {}).items():
                if isinstance(value, list) and isinstance(merged.get(name, []), list):
                    merged[name] = [*merged.get(name, []), *value]
                else:
                    merged.setdefault(name, value)
        return merged

    def _opened(self) -> Store:
        self.close()
        return open_store(self.path)

    def close(self) -> None:
        """Lets another process have the part."""
        _release(self._lock)
        self._lock = None


def _release(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)

"""Writing a store shard by shard, so that a killed run resumes and ends with the same bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from inscape.errors import StoreCorruptError, StoreIncompleteError, StoreMismatchError
from inscape.store.files import (
    TEMPORARY,
    check_file,
    parquet_bytes,
    publish,
    safe_name,
    write_file,
    write_temporary,
)
from inscape.store.index import RowIndex, index_table
from inscape.store.manifest import ABSENT, MANIFEST, STIMULI, Manifest, ShardEntry, SiteSpec, differences, plain
from inscape.store.opening import open_store
from inscape.store.reading import read_manifest, read_stimuli
from inscape.store.shards import shard_parts
from inscape.store.sources import TensorRows
from inscape.store.store import Site, Store, empty_rows
from inscape.store.tables import content_hash, stimulus_table, unique_ids, units_table

_OWN_FILE = re.compile(r"\d+\.(safetensors|parquet)")


class StoreWriter:
    """Takes the shards of a store one after another; `create_or_resume` makes one for a folder or for memory.

    Example:
        >>> writer = StoreWriter.create_or_resume("runs/x", {"model": "m"}, ["a", "b"], {"h": SiteSpec("pooled", 4)})
        >>> writer.write_shard(0, {"pooled": index}, {"h": values})
        >>> store = writer.finish()
    """

    def __init__(self, manifest: Manifest, stimuli: pa.Table, units: dict[str, pa.Table]) -> None:
        self.manifest = manifest
        self.stimuli = stimuli
        self.units = units

    @staticmethod
    def create_or_resume(
        path: str | Path | None,
        plan: Mapping[str, Any],
        stimuli: Any,
        sites: Mapping[str, SiteSpec],
        *,
        units: Mapping[str, Any] | None = None,
        system: str | None = None,
    ) -> StoreWriter:
        """A writer for `path` (None: memory) that goes on where an earlier one for the same plan stopped.

        Args:
            path: the folder of the store.
            plan: everything that decides the bytes: model identity, token rule, batch plan, versions, …
            stimuli: one row per stimulus: a list of ids, or a table with the column `stimulus` and the user's own.
            sites: what each site holds, in order.
            units: optional unit tables by site, one row per unit.
            system: a short label; defaults to the plan's model name, then the folder's.

        Raises:
            StoreMismatchError: the folder holds a store of another plan (the message names the fields), or something else.
            StimuliError: a stimulus id is missing or occurs twice.
        """
        table = stimulus_table(stimuli)
        unique_ids(table)
        tables = {site: units_table(unit, sites[site].d, site) for site, unit in (units or {}).items()}
        manifest = Manifest(
            system=system or _label(plan, path),
            plan=plain(plan),
            sites=dict(sites),
            stimuli={"rows": table.num_rows, "sha256": content_hash(table)},
            units={site: {"sha256": content_hash(unit)} for site, unit in tables.items()},
        )
        if path is None:
            return _MemoryWriter(manifest, table, tables)
        return _DiskWriter(Path(path), manifest, table, tables)

    @property
    def done_shards(self) -> set[int]:
        """Numbers of the shards that are finished; the next one to write is their count."""
        return set(range(len(self.manifest.shards)))

    @property
    def complete(self) -> bool:
        """Whether `finish` was reached, by this writer or an earlier one."""
        return self.manifest.complete

    @property
    def notes(self) -> dict[str, Any]:
        """What was recorded so far, also by the runs before this one."""
        return dict(self.manifest.notes)

    def record(self, **notes: Any) -> None:
        """Keeps facts in the manifest at once: a batch halving is recorded before the shard that it shapes."""
        self._put(self.manifest.with_(notes={**self.manifest.notes, **plain(notes)}))

    def write_shard(
        self, index: int, rows: Mapping[str, pa.Table], values: Mapping[str, Tensor], notes: Mapping[str, Any] | None = None
    ) -> None:
        """Adds shard `index`; it counts as written only when this returns.

        Args:
            index: the number of the shard, which must be the next one.
            rows: per row set, a table with stimulus (row of the stimuli table), repeat, position and further columns.
            values: per site, the tensor [rows, d] in the site's dtype.
            notes: facts about this shard.

        Raises:
            StoreMismatchError: shapes, dtypes, sites, row sets or the shard's number do not fit.
            StoreIncompleteError: the disk is full; the store stays valid and resumes.
        """
        tables, entry = self._checked(index, rows, values, notes or {})
        self._store_shard(tables, values, entry)

    def finish(self, notes: Mapping[str, Any] | None = None) -> Store:
        """Marks the store complete and opens it."""
        if not self.complete:
            self._put(self.manifest.with_(notes={**self.manifest.notes, **plain(notes or {})}, complete=True))
        return self._opened()

    def close(self) -> None:
        """Lets another writer have the folder; `finish` does so too."""

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _checked(
        self, index: int, rows: Mapping[str, pa.Table], values: Mapping[str, Tensor], notes: Mapping[str, Any]
    ) -> tuple[dict[str, pa.Table], ShardEntry]:
        sites, done = self.manifest.sites, len(self.manifest.shards)
        if self.complete or index != done:
            state = "the store is complete" if self.complete else f"shard {done} is the next one"
            raise StoreMismatchError(f"shard {index} cannot be written: {state}; shards are written in order")
        wanted = dict.fromkeys(spec.row_set for spec in sites.values())
        for what, given, needed in (("sites", values, sites), ("row sets", rows, wanted)):
            if set(given) != set(needed):
                raise StoreMismatchError(f"shard {index} has the {what} {sorted(given)}; the store has {sorted(needed)}")
        tables = {name: index_table(rows[name], name) for name in wanted}
        for name, table in tables.items():
            numbers = table["stimulus"].to_numpy()
            if len(numbers) and (numbers.min() < 0 or numbers.max() >= self.stimuli.num_rows):
                raise StoreMismatchError(
                    f"row set {name!r} of shard {index} points at stimulus {numbers.max()}; there are {self.stimuli.num_rows}"
                )
        for site, spec in sites.items():
            tensor, count = values[site], tables[spec.row_set].num_rows
            if tuple(tensor.shape) != (count, spec.d) or tensor.dtype != spec.torch_dtype:
                raise StoreMismatchError(
                    f"site {site!r} of shard {index} is {tensor.dtype} {list(tensor.shape)}; "
                    f"expected {spec.torch_dtype} [{count}, {spec.d}]"
                )
        first = {name: self.manifest.rows(name) for name in wanted}
        spans = {name: (first[name], first[name] + table.num_rows) for name, table in tables.items()}
        return tables, ShardEntry(spans, {}, plain(notes))

    def _put(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def _store_shard(self, tables: dict[str, pa.Table], values: Mapping[str, Tensor], entry: ShardEntry) -> None:
        raise AssertionError("a writer is made by create_or_resume")

    def _opened(self) -> Store:
        raise AssertionError("a writer is made by create_or_resume")


class _MemoryWriter(StoreWriter):
    """Keeps the shards as tensors."""

    def __init__(self, manifest: Manifest, stimuli: pa.Table, units: dict[str, pa.Table]) -> None:
        super().__init__(manifest, stimuli, units)
        self._indexes: list[dict[str, pa.Table]] = []
        self._values: list[dict[str, Tensor]] = []
        self._store: Store | None = None

    def _store_shard(self, tables: dict[str, pa.Table], values: Mapping[str, Tensor], entry: ShardEntry) -> None:
        self._indexes.append(tables)
        # Copies: the caller may fill the same buffers again for the next shard.
        self._values.append({site: tensor.detach().to("cpu", copy=True).contiguous() for site, tensor in values.items()})
        self._put(self.manifest.with_(shards=(*self.manifest.shards, entry)))

    def _opened(self) -> Store:
        if self._store is None:
            specs = self.manifest.sites
            indexes = {
                name: RowIndex.chained([RowIndex.fixed(shard[name]) for shard in self._indexes])
                for name in dict.fromkeys(spec.row_set for spec in specs.values())
            }
            found: dict[str, Site] = {}
            for site, spec in specs.items():
                blocks = [shard.pop(site) for shard in self._values]  # popped: joining then takes one site's memory, not all
                values = torch.cat(blocks) if len(blocks) > 1 else blocks[0] if blocks else empty_rows(spec)
                found[site] = Site(spec, TensorRows(values), indexes[spec.row_set], self.units.get(site))
            self._store = Store(self.manifest, self.stimuli, found)
        return self._store


class _DiskWriter(StoreWriter):
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
                self._create()
        except BaseException:
            self.close()
            raise

    def _create(self) -> None:
        foreign = sorted(
            entry.name
            for entry in self.path.iterdir()
            if entry.name not in (STIMULI, "rows", "shards", "units") and not entry.name.startswith(TEMPORARY)
        )
        if foreign:
            raise StoreMismatchError(
                f"{self.path} holds {len(foreign)} files that belong to no store ({', '.join(foreign[:3])}); give an empty or a new folder"
            )
        self._clean()
        write_file(self.path / STIMULI, parquet_bytes(self.stimuli))
        facts: dict[str, dict[str, Any]] = {}
        for site, table in self.units.items():
            written = write_file(self.path / "units" / f"{safe_name(site)}.parquet", parquet_bytes(table))
            facts[site] = {"sha256": self.manifest.units[site]["sha256"], "file": written}
        self._put(self.manifest.with_(units=facts))

    def _resume(self) -> None:
        found = read_manifest(self.path)
        ours, theirs = _identity(self.manifest), _identity(found)
        changed = differences(theirs, ours)
        if list(theirs["sites"]) != list(ours["sites"]) and not changed:
            changed = [("sites (their order)", list(theirs["sites"]), list(ours["sites"]))]
        if changed:
            shown = "; ".join(f"{name} was {_brief(was)}, now is {_brief(now)}" for name, was, now in changed[:5])
            more = f" (and {len(changed) - 5} more)" if len(changed) > 5 else ""
            raise StoreMismatchError(
                f"{self.path} holds a store of another plan: {shown}{more}. Give another folder, or the settings it was begun with"
            )
        self.stimuli = read_stimuli(self.path, found)
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
        self.manifest = found.with_(shards=found.shards[:kept])
        self._clean()

    def _clean(self) -> None:
        """Removes what a killed run left: temporary files, and shards that the manifest does not list."""
        listed = {name for entry in self.manifest.shards for name in entry.files}
        for pattern in (f"{TEMPORARY}*", f"units/{TEMPORARY}*", "rows/*/*", "shards/*/*"):
            for file in self.path.glob(pattern):
                ours = file.name.startswith(TEMPORARY) or _OWN_FILE.fullmatch(file.name)
                if ours and file.is_file() and file.relative_to(self.path).as_posix() not in listed:
                    file.unlink()

    def _put(self, manifest: Manifest) -> None:
        write_file(self.path / MANIFEST, manifest.to_json())
        self.manifest = manifest

    def _store_shard(self, tables: dict[str, pa.Table], values: Mapping[str, Tensor], entry: ShardEntry) -> None:
        written = write_shard_files(self.path, self.manifest.sites, tables, values, entry)
        self._put(self.manifest.with_(shards=(*self.manifest.shards, written)))

    def _opened(self) -> Store:
        self.close()
        return open_store(self.path)

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def write_shard_files(
    root: Path, sites: Mapping[str, SiteSpec], tables: Mapping[str, pa.Table], values: Mapping[str, Tensor], entry: ShardEntry
) -> ShardEntry:
    """Writes the files of one shard, all or none; they count once the manifest lists the entry that is returned."""
    files: dict[str, dict[str, Any]] = {}
    try:
        # A row set without rows has no file: its first row is also that of the next shard.
        for name, table in tables.items():
            if table.num_rows:
                file = f"rows/{safe_name(name)}/{entry.rows[name][0]}.parquet"
                files[file] = write_temporary(root / file, [parquet_bytes(table)])
        for site, spec in sites.items():
            if tables[spec.row_set].num_rows:
                file = f"shards/{safe_name(site)}/{entry.rows[spec.row_set][0]}.safetensors"
                files[file] = write_temporary(root / file, shard_parts(values[site], site))
    except BaseException:
        for file in files:
            path = root / file
            path.with_name(TEMPORARY + path.name).unlink(missing_ok=True)
        raise
    publish(root / file for file in files)
    return ShardEntry(entry.rows, files, entry.notes)


def _label(plan: Mapping[str, Any], path: str | Path | None) -> str:
    model = plan.get("model")
    name = model.get("name") if isinstance(model, Mapping) else model
    return str(name) if name else Path(path).name if path is not None else "memory"


def _identity(manifest: Manifest) -> dict[str, Any]:
    units = {site: facts["sha256"] for site, facts in manifest.units.items()}
    sites = {name: plain(vars(spec)) for name, spec in manifest.sites.items()}
    return {**manifest.plan, "stimuli": manifest.stimuli, "sites": sites, "units": units}


def _brief(value: Any) -> str:
    text = ABSENT if value == ABSENT else repr(value)
    return text if len(text) <= 120 else text[:119] + "…"


def lock_folder(path: Path) -> int | None:
    """Takes the folder for one writer; the system gives it back when the process ends, however it ends.

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
        raise StoreIncompleteError(f"another process is writing {path}; wait for it, or give another folder") from error
    return descriptor

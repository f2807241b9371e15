"""Writing a store shard by shard, so that a killed run resumes and ends with the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from inscape.errors import StoreMismatchError
from inscape.store.growing_stimuli import GrowingStimuli, joined_stimuli
from inscape.store.index import RowIndex, index_table
from inscape.store.manifest import Manifest, ShardEntry, SiteSpec, plain
from inscape.store.remote import RemotePath, place_of
from inscape.store.sources import TensorRows
from inscape.store.store import Site, Store, empty_rows
from inscape.store.tables import content_hash, stimulus_table, unique_ids, units_table


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
        self.growing = GrowingStimuli() if manifest.growing else None

    @staticmethod
    def create_or_resume(
        path: str | Path | None,
        plan: Mapping[str, Any],
        stimuli: Any,
        sites: Mapping[str, SiteSpec],
        *,
        units: Mapping[str, Any] | None = None,
        system: str | None = None,
        part: tuple[int, int] | None = None,
        shards: int = 0,
    ) -> StoreWriter:
        """A writer for `path` (None: memory) that goes on where an earlier one for the same plan stopped.

        Args:
            path: the folder of the store, or an address that fsspec knows.
            plan: everything that decides the bytes: model identity, token rule, batch plan, versions, …
            stimuli: one row per stimulus: a list of ids, or a table with the column `stimulus` and the user's own. None: each shard brings
                its own.
            sites: what each site holds, in order.
            units: optional unit tables by site, one row per unit.
            system: a short label; defaults to the plan's model name, then the folder's.
            part: `(k, n)` writes the k-th of n parts of the folder's store, beside other processes that write the others.
            shards: how many shards the whole store has; needed with `part`.

        Raises:
            StoreMismatchError: the folder holds a store of another plan (the message names the fields), or something else.
            StimuliError: a stimulus id is missing or occurs twice.
        """
        table = stimulus_table([] if stimuli is None else stimuli)
        unique_ids(table)
        counted: dict[str, Any] = {"rows": 0, "by_shard": True}
        tables = {site: units_table(unit, sites[site].d, site) for site, unit in (units or {}).items()}
        manifest = Manifest(
            system=system or _label(plan, path),
            plan=plain(plan),
            sites=dict(sites),
            stimuli=counted if stimuli is None else {"rows": table.num_rows, "sha256": content_hash(table)},
            units={site: {"sha256": content_hash(unit)} for site, unit in tables.items()},
        )
        if part is not None and stimuli is None:
            raise StoreMismatchError("a store whose stimuli come with its shards is written by one process; leave part= out")
        if path is None:
            return _MemoryWriter(manifest, table, tables)
        from inscape.store.disk import DiskWriter
        from inscape.store.parts import PartWriter
        from inscape.store.remote_writing import RemoteWriter

        place = place_of(path)
        if isinstance(place, RemotePath):
            if part is not None:
                raise StoreMismatchError(f"part={part[0]}/{part[1]} needs a local folder, which processes can lock; {place} is an address")
            return RemoteWriter(place, manifest, table, tables)
        there = next(folder for folder in (place, *place.parents) if folder.exists() or folder == folder.parent)
        if not there.is_dir():
            raise StoreMismatchError(f"{there} is a file, and a store is a folder; choose another place for to=")
        if part is not None:
            return PartWriter(place, manifest, table, tables, part, shards)
        return DiskWriter(place, manifest, table, tables)

    @property
    def done_shards(self) -> set[int]:
        """Numbers of the shards that are finished."""
        return set(range(len(self.manifest.shards)))

    @property
    def next_shard(self) -> int:
        """Number of the shard to be written next."""
        return len(self.manifest.shards)

    def first_row(self, row_set: str) -> int:
        """The number of the first row that the next shard adds to a row set."""
        return self.manifest.rows(row_set)

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
        self,
        index: int,
        rows: Mapping[str, pa.Table],
        values: Mapping[str, Tensor],
        notes: Mapping[str, Any] | None = None,
        stimuli: pa.Table | None = None,
    ) -> None:
        """Adds shard `index`; it counts as written only when this returns.

        Args:
            index: the number of the shard, which must be the next one.
            rows: per row set, a table with stimulus (row of the stimuli table), repeat, position and further columns.
            values: per site, the tensor [rows, d] in the site's dtype.
            notes: facts about this shard.
            stimuli: the shard's own stimuli, where the store was begun without any; they follow those of the shards before.

        Raises:
            StimuliError: an id has been there before, or a column has another type.
            StoreMismatchError: shapes, dtypes, sites, row sets or the shard's number do not fit.
            StoreIncompleteError: the disk is full; the store stays valid and resumes.
        """
        if (stimuli is not None) != self.manifest.growing:
            raise StoreMismatchError(
                f"shard {index} {'brings stimuli' if stimuli is not None else 'brings no stimuli'}, and the store was begun "
                f"{'with' if stimuli is not None else 'without'} a table of them"
            )
        tables, entry = self._checked(index, rows, values, notes or {}, 0 if stimuli is None else stimuli.num_rows)
        if stimuli is not None and self.growing is not None:
            self.growing.add(stimulus_table(stimuli))
        self._store_shard(tables, values, entry)
        if self.growing is not None:
            self.growing.settle()

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
        self, index: int, rows: Mapping[str, pa.Table], values: Mapping[str, Tensor], notes: Mapping[str, Any], fresh: int
    ) -> tuple[dict[str, pa.Table], ShardEntry]:
        sites, done = self.manifest.sites, self.next_shard
        if self.complete or index != done:
            state = "the store is complete" if self.complete else f"shard {done} is the next one"
            raise StoreMismatchError(f"shard {index} cannot be written: {state}; shards are written in order")
        wanted = dict.fromkeys(spec.row_set for spec in sites.values())
        for what, given, needed in (("sites", values, sites), ("row sets", rows, wanted)):
            if set(given) != set(needed):
                raise StoreMismatchError(f"shard {index} has the {what} {sorted(given)}; the store has {sorted(needed)}")
        tables = {name: index_table(rows[name], name) for name in wanted}
        known = self.manifest.stimuli["rows"] + fresh
        for name, table in tables.items():
            numbers = table["stimulus"].to_numpy()
            if len(numbers) and (numbers.min() < 0 or numbers.max() >= known):
                raise StoreMismatchError(f"row set {name!r} of shard {index} points at stimulus {numbers.max()}; there are {known}")
        for site, spec in sites.items():
            tensor, count = values[site], tables[spec.row_set].num_rows
            if tuple(tensor.shape) != (count, spec.d) or tensor.dtype != spec.torch_dtype:
                raise StoreMismatchError(
                    f"site {site!r} of shard {index} is {tensor.dtype} {list(tensor.shape)}; "
                    f"expected {spec.torch_dtype} [{count}, {spec.d}]"
                )
        first = {name: self.first_row(name) for name in wanted}
        spans = {name: (first[name], first[name] + table.num_rows) for name, table in tables.items()}
        return tables, ShardEntry(spans, {}, plain(notes))

    def _put(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def _with(self, entry: ShardEntry) -> Manifest:
        """The manifest with one more shard and the stimuli that came with it."""
        manifest = self.manifest.with_(shards=(*self.manifest.shards, entry))
        return manifest if self.growing is None else manifest.with_(stimuli={**manifest.stimuli, "rows": self.growing.total})

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
        self._stimuli: list[pa.Table] = []
        self._store: Store | None = None

    def _store_shard(self, tables: dict[str, pa.Table], values: Mapping[str, Tensor], entry: ShardEntry) -> None:
        self._indexes.append(tables)
        # Copies: the caller may fill the same buffers again for the next shard.
        self._values.append({site: tensor.detach().to("cpu", copy=True).contiguous() for site, tensor in values.items()})
        if self.growing is not None:
            self._stimuli.append(self.growing.fresh)
        self._put(self._with(entry))

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
            self._store = Store(self.manifest, joined_stimuli(self._stimuli) if self.manifest.growing else self.stimuli, found)
        return self._store


def _label(plan: Mapping[str, Any], path: str | Path | None) -> str:
    model = plan.get("model")
    name = model.get("name") if isinstance(model, Mapping) else model
    return str(name) if name else Path(path).name if path is not None else "memory"

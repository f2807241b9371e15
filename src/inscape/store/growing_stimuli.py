"""A table of stimuli that grows with the store: each shard brings its own, so that no run ever holds them all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from inscape.errors import StimuliError, StoreCorruptError
from inscape.store.files import check_file, parquet_bytes, read_parquet, restore_hint
from inscape.store.manifest import Manifest, ShardEntry
from inscape.store.remote import Place
from inscape.store.tables import ID, stimulus_table

FOLDER = "stimuli"


class GrowingStimuli:
    """What a writer knows of the stimuli so far: how many, their columns, and hashes of their ids.

    Attributes:
        rows: stimuli of all finished shards.
        fresh: those of the shard that is being written, with the columns of all shards before it.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.fresh: pa.Table = stimulus_table([])
        self._waiting = np.empty(0, np.uint64)
        self._columns: pa.Table | None = None  # no rows, but the columns of all shards
        self._ids = np.empty(0, np.uint64)

    @property
    def total(self) -> int:
        """Stimuli of all shards, the one that is being written included."""
        return self.rows + self.fresh.num_rows

    def add(self, table: pa.Table) -> None:
        """Takes the stimuli of the next shard; they count once it is written.

        Raises:
            StimuliError: an id is not new, or a column has a type that does not go with what it had before.
        """
        hashes = _hashes(table[ID])
        ordered = np.sort(hashes)
        at = np.minimum(np.searchsorted(self._ids, ordered), max(0, len(self._ids) - 1))
        known = ordered[self._ids[at] == ordered] if len(self._ids) else ordered[:0]
        again = np.concatenate([known, ordered[1:][ordered[1:] == ordered[:-1]]])
        if len(again):
            name = table[ID][int(np.flatnonzero(hashes == again[0])[-1])].as_py()
            raise StimuliError(
                f"the stimulus id {name!r} comes back in a stream; stimuli that are read piece by piece need ids of their own, since "
                "repeats could be anywhere. Leave the ids out, or give a table, which may hold repeats"
            )
        self.fresh, self._waiting = self._with_columns(table), ordered

    def settle(self) -> None:
        """The shard is written."""
        self._ids = np.sort(np.concatenate([self._ids, self._waiting]), kind="stable")
        self._columns, self.rows = self.fresh.slice(0, 0), self.total
        self.fresh = self._columns

    def files(self) -> dict[str, bytes]:
        """The file of the shard's stimuli."""
        return {f"{FOLDER}/{self.rows}.parquet": parquet_bytes(self.fresh)}

    def resume(self, root: Place, manifest: Manifest) -> None:
        """Takes up what the finished shards hold.

        Raises:
            StoreCorruptError: one of their files is damaged.
        """
        self.rows = manifest.stimuli["rows"]
        for table in _parts(root, manifest, [ID]):
            self._ids = np.sort(np.concatenate([self._ids, _hashes(table[ID])]), kind="stable")
        for table in _parts(root, manifest.with_(shards=manifest.shards[-1:])):
            self._columns = _named_alike(table.slice(0, 0))

    def _with_columns(self, table: pa.Table) -> pa.Table:
        table = _named_alike(table)
        if self._columns is None:
            return table
        try:
            return pa.concat_tables([self._columns, table], promote_options="permissive").combine_chunks()
        except pa.ArrowException as error:
            raise StimuliError(
                f"a column of the stimuli from number {self.rows} on has another type than before ({error}); give each column one type"
            ) from error


def count_stimuli(entry: ShardEntry) -> int:
    """How many stimuli there are before a shard."""
    (name,) = _files(entry)
    return int(name.removeprefix(f"{FOLDER}/").removesuffix(".parquet"))


def read_parts(root: Place, manifest: Manifest) -> pa.Table:
    """The stimuli of all finished shards.

    Raises:
        StoreCorruptError: a file is damaged.
    """
    table = joined_stimuli(list(_parts(root, manifest)))
    if table.num_rows != manifest.stimuli["rows"]:
        raise StoreCorruptError(f"{root} lists {manifest.stimuli['rows']} stimuli and its shards hold {table.num_rows}; {restore_hint()}")
    return table


def joined_stimuli(parts: Sequence[pa.Table]) -> pa.Table:
    """The stimuli of shards one after another; a column that came later is empty before."""
    return pa.concat_tables(parts, promote_options="permissive").combine_chunks() if parts else stimulus_table([])


def _files(entry: ShardEntry) -> list[str]:
    return [name for name in entry.files if name.startswith(f"{FOLDER}/")]


def _parts(root: Place, manifest: Manifest, columns: list[str] | None = None) -> Iterator[pa.Table]:
    for entry in manifest.shards:
        for name in _files(entry):
            check_file(root / name, entry.files[name], checksum=True)
            table = read_parquet(root / name)
            yield table if columns is None else table.select(columns)


def _named_alike(table: pa.Table) -> pa.Table:
    """The table with the inner fields of lists named as Arrow names them: Parquet has a name of its own, and bytes must not tell
    whether a run was resumed.
    """
    return table.cast(pa.schema([pa.field(field.name, _plain(field.type)) for field in table.schema]))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain(kind.value_type))
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(kind.field(i).name, _plain(kind.field(i).type)) for i in range(kind.num_fields)])
    return kind


def _hashes(ids: pa.ChunkedArray) -> np.ndarray:
    """64 bits per id: eight bytes for each stimulus are all that a long stream keeps in memory."""
    names: list[str] = ids.to_pylist()
    return np.array([int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") for name in names], np.uint64)

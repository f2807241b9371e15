"""Rows of a store behind an address: read by ranges, block by block, with the last blocks kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock

import numpy as np
from torch import Tensor

from inscape.errors import StoreCorruptError
from inscape.store.files import restore_hint
from inscape.store.remote import RemotePath
from inscape.store.shards import DTYPES, ShardFile, from_carrier
from inscape.store.sources import digest_of

# What one request asks for. Blocks hold whole rows, so that no row spans two.
BLOCK_BYTES = 2**20
# Blocks that stay in memory for one opened store, and the most that is asked for at a time.
CACHED_BYTES = 256 * 2**20
REQUESTED_BYTES = 32 * 2**20


class Blocks:
    """Blocks of rows of remote shards; the most recently used stay in memory, within `limit` bytes."""

    def __init__(self, limit: int = CACHED_BYTES) -> None:
        self.limit = limit
        self.fetched = 0  # bytes asked for so far
        self._kept: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @staticmethod
    def rows_each(shard: ShardFile) -> int:
        """Rows in one block of a shard."""
        return max(1, BLOCK_BYTES // max(1, shard.nbytes // max(1, shard.n)))

    def get(self, shards: Sequence[ShardFile], numbers: Sequence[int]) -> list[np.ndarray]:
        """One block [rows, d] for each pair of a shard and a block's number; what is missing is asked for at once."""
        keys = [(str(shard.path), number) for shard, number in zip(shards, numbers, strict=True)]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        missing = [at for at, key in enumerate(keys) if key not in found]
        for at, block in zip(missing, self._fetch([shards[at] for at in missing], [numbers[at] for at in missing]), strict=True):
            found[keys[at]] = block
            with self._lock:
                if keys[at] not in self._kept:
                    self._bytes += block.nbytes
                self._kept[keys[at]] = block
                while len(self._kept) > 1 and self._bytes > self.limit:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return [found[key] for key in keys]

    def _fetch(self, shards: Sequence[ShardFile], numbers: Sequence[int]) -> list[np.ndarray]:
        if not shards:
            return []
        first = shards[0].path
        assert isinstance(first, RemotePath)
        spans: list[tuple[int, int, int]] = []
        for shard, number in zip(shards, numbers, strict=True):
            begin, each, width = shard.data_start(), self.rows_each(shard), shard.nbytes // shard.n
            rows = min(shard.n, (number + 1) * each) - number * each
            spans.append((begin + number * each * width, begin + (number * each + rows) * width, rows))
        paths = [shard.path.path for shard in shards if isinstance(shard.path, RemotePath)]
        got = first.files.cat_ranges(paths, [a for a, *_ in spans], [b for _, b, _ in spans], on_error="raise")
        blocks: list[np.ndarray] = []
        for shard, (start, stop, rows), data in zip(shards, spans, got, strict=True):
            self.fetched += stop - start
            if len(data) != stop - start:
                raise StoreCorruptError(
                    f"{shard.path} gave {len(data)} of {stop - start} bytes: it was truncated or replaced; {restore_hint()}"
                )
            blocks.append(np.frombuffer(data, DTYPES[shard.dtype][2]).reshape(rows, shard.d))
        return blocks


class RemoteRows:
    """Rows of one site in shards behind an address."""

    def __init__(self, shards: Sequence[ShardFile], d: int, dtype: str, blocks: Blocks) -> None:
        self.shards, self.blocks = list(shards), blocks
        self.starts = np.cumsum([0, *(shard.n for shard in shards)])
        self.n, self.d, self.dtype = int(self.starts[-1]), d, dtype

    def read(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop)."""
        return self.gather(np.arange(start, stop))

    def gather(self, rows: np.ndarray) -> Tensor:
        """The rows with these numbers, in this order."""
        out = np.empty((len(rows), self.d), DTYPES[self.dtype][2])
        shard_of = np.searchsorted(self.starts, rows, "right") - 1
        local = rows - self.starts[shard_of]
        each = np.array([Blocks.rows_each(shard) for shard in self.shards] or [1])
        block_of = local // each[shard_of]
        order = np.lexsort((block_of, shard_of))
        changes = np.flatnonzero(np.diff(shard_of[order]) | np.diff(block_of[order])) + 1
        groups = [part for part in np.split(order, changes) if len(part)]
        for some in self._requests(groups):
            shards = [self.shards[int(shard_of[part[0]])] for part in some]
            numbers = [int(block_of[part[0]]) for part in some]
            for part, number, shard, block in zip(some, numbers, shards, self.blocks.get(shards, numbers), strict=True):
                out[part] = block[local[part] - number * Blocks.rows_each(shard)]
        return from_carrier(out, self.dtype)

    def _requests(self, groups: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Groups of rows of one block each, a few blocks at a time."""
        count = max(1, min(REQUESTED_BYTES, self.blocks.limit) // max(BLOCK_BYTES, self.d * 8))
        for start in range(0, len(groups), count):
            yield groups[start : start + count]

    def fingerprint(self) -> str:
        """A hash of what the rows are, from the checksums of their files."""
        return digest_of("shards", *(str(shard.facts["sha256"]) for shard in self.shards))

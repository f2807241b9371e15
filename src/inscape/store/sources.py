"""Where rows come from: shards on disk, tensors in memory, and lazy selections, chains and means of those."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from inscape.errors import StoreIncompleteError
from inscape.store.shards import DTYPES, Maps, ShardFile, carrier, dtype_name, from_carrier

_BLOCK = 2**19
_HASHED = 32 * 2**20


@runtime_checkable
class Source(Protocol):
    """Rows [n, d] of one dtype that can be read in order or gathered; results never share memory with the source."""

    n: int
    d: int
    dtype: str

    def read(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop)."""
        ...

    def gather(self, rows: np.ndarray) -> Tensor:
        """The rows with these (valid, non-negative) numbers, in this order."""
        ...

    def fingerprint(self) -> str:
        """A hash of what the rows are, without reading a disk twice."""
        ...


def digest_of(*parts: str | bytes | np.ndarray) -> str:
    """A SHA-256 over texts, bytes and arrays, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


class TensorRows:
    """Rows of one tensor in memory."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.n, self.d = int(values.shape[0]), int(values.shape[1])
        self.dtype = dtype_name(values.dtype)

    def read(self, start: int, stop: int) -> Tensor:
        return self.values[start:stop].clone()

    def gather(self, rows: np.ndarray) -> Tensor:
        return self.values.index_select(0, torch.from_numpy(np.ascontiguousarray(rows, np.int64)))

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.dtype} {self.n} {self.d}".encode())
        size = max(1, _HASHED // max(1, self.d * self.values.itemsize))
        for start in range(0, self.n, size):
            digest.update(carrier(self.values[start : start + size]).reshape(-1).data.cast("B"))
        return digest.hexdigest()


class ShardRows:
    """Rows of one site on disk, in shards."""

    def __init__(self, shards: Sequence[ShardFile], d: int, dtype: str, maps: Maps) -> None:
        self.shards, self.maps = list(shards), maps
        self.starts = np.cumsum([0, *(shard.n for shard in shards)])
        self.n, self.d, self.dtype = int(self.starts[-1]), d, dtype

    def read(self, start: int, stop: int) -> Tensor:
        out = np.empty((stop - start, self.d), DTYPES[self.dtype][2])
        at, filled = int(np.searchsorted(self.starts, start, "right")) - 1, 0
        while filled < len(out):
            local = start + filled - int(self.starts[at])
            count = min(self.shards[at].n - local, len(out) - filled)
            if count:
                self.maps.copy(self.shards[at], local, out[filled : filled + count])
            filled, at = filled + count, at + 1
        return from_carrier(out, self.dtype)

    def gather(self, rows: np.ndarray) -> Tensor:
        out = np.empty((len(rows), self.d), DTYPES[self.dtype][2])
        shard_of = np.searchsorted(self.starts, rows, "right") - 1
        if len(rows) and bool((shard_of == shard_of[0]).all()):
            at = int(shard_of[0])
            np.take(self.maps.of(self.shards[at]), rows - self.starts[at], axis=0, out=out, mode="clip")
            return from_carrier(out, self.dtype)
        order = np.argsort(shard_of, kind="stable")
        bounds = np.searchsorted(shard_of[order], np.arange(len(self.shards) + 1))
        local = rows - self.starts[shard_of]
        # One item per row: an indexed assignment then is one memcpy a row. The block between is small and used again, so the
        # second copy stays inside the cache.
        item = np.dtype((np.void, self.d * out.itemsize))
        flat, size = out.view(item).reshape(-1), max(1, _BLOCK // item.itemsize)
        block = np.empty(size, item)
        for at in np.unique(shard_of):
            source = self.maps.of(self.shards[at]).view(item).reshape(-1)
            for begin in range(int(bounds[at]), int(bounds[at + 1]), size):
                places = order[begin : min(begin + size, int(bounds[at + 1]))]
                source.take(local[places], mode="clip", out=block[: len(places)])
                flat[places] = block[: len(places)]
        return from_carrier(out, self.dtype)

    def fingerprint(self) -> str:
        return digest_of("shards", *(str(shard.facts["sha256"]) for shard in self.shards))


class ChosenRows:
    """A lazy choice of rows and units of another source."""

    def __init__(self, inner: Source, rows: range | np.ndarray | None, units: slice | np.ndarray | None = None) -> None:
        if isinstance(inner, ChosenRows):
            rows = inner.rows if rows is None else compose(inner.rows, rows)
            if units is None:
                units = inner.units
            elif inner.units is not None:
                units = np.arange(inner.inner.d)[inner.units][units]
            inner = inner.inner
        self.inner = inner
        self.rows: range | np.ndarray = range(inner.n) if rows is None else rows
        self.units = units
        self.n, self.dtype = len(self.rows), inner.dtype
        self.d = inner.d if units is None else len(range(inner.d)[units]) if isinstance(units, slice) else len(units)

    def _cut(self, values: Tensor) -> Tensor:
        if self.units is None:
            return values
        if isinstance(self.units, slice):
            return values[:, self.units].contiguous()
        return values.index_select(1, torch.from_numpy(self.units))

    def read(self, start: int, stop: int) -> Tensor:
        part = self.rows[start:stop]
        if isinstance(part, range):
            return self._cut(self.inner.read(part.start, part.start + len(part)))
        return self._cut(self.inner.gather(part))

    def gather(self, rows: np.ndarray) -> Tensor:
        chosen = rows + self.rows.start if isinstance(self.rows, range) else self.rows[rows]
        return self._cut(self.inner.gather(chosen))

    def fingerprint(self) -> str:
        units = np.arange(self.inner.d)[self.units] if self.units is not None else np.arange(self.inner.d)
        return digest_of("chosen", self.inner.fingerprint(), np.asarray(self.rows, np.int64), units.astype(np.int64))


def compose(outer: range | np.ndarray, rows: range | np.ndarray) -> range | np.ndarray:
    """`outer[rows]`, kept as a range where it is one."""
    if isinstance(rows, range):
        return outer[rows.start : rows.start + len(rows)]
    return rows + outer.start if isinstance(outer, range) else outer[rows]


class ChainedRows:
    """Sources one after another."""

    def __init__(self, parts: Sequence[Source]) -> None:
        self.parts = list(parts)
        self.starts = np.cumsum([0, *(part.n for part in parts)])
        self.n, self.d, self.dtype = int(self.starts[-1]), parts[0].d, parts[0].dtype

    def read(self, start: int, stop: int) -> Tensor:
        pieces = [
            part.read(max(start - int(first), 0), min(stop - int(first), part.n))
            for part, first in zip(self.parts, self.starts, strict=False)
            if first < stop and first + part.n > start
        ]
        return torch.cat(pieces) if pieces else self.parts[0].read(0, 0)

    def gather(self, rows: np.ndarray) -> Tensor:
        out = torch.empty((len(rows), self.d), dtype=DTYPES[self.dtype][0])
        part_of = np.searchsorted(self.starts, rows, "right") - 1
        for at in np.unique(part_of):
            places = np.flatnonzero(part_of == at)
            out[torch.from_numpy(places)] = self.parts[at].gather(rows[places] - self.starts[at])
        return out

    def fingerprint(self) -> str:
        return digest_of("chained", *(part.fingerprint() for part in self.parts))


class MeanRows:
    """Means over groups of rows of another source, taken in fp64; half precision comes out as fp32."""

    def __init__(self, inner: Source, group: np.ndarray) -> None:
        """`group[i]` is the output row that input row i belongs to; every output row has at least one."""
        self.inner, self.group = inner, group
        self.order = np.argsort(group, kind="stable")
        self.starts = np.searchsorted(group[self.order], np.arange(int(group.max(initial=-1)) + 2))
        self.n, self.d = len(self.starts) - 1, inner.d
        self.dtype = "float64" if inner.dtype == "float64" else "float32"

    def read(self, start: int, stop: int) -> Tensor:
        return self.gather(np.arange(start, stop))

    def gather(self, rows: np.ndarray) -> Tensor:
        counts = self.starts[rows + 1] - self.starts[rows]
        total = np.concatenate([[0], np.cumsum(counts)])
        members = self.order[np.repeat(self.starts[rows] - total[:-1], counts) + np.arange(int(total[-1]))]
        sums = torch.zeros((len(rows), self.d), dtype=torch.float64)
        sums.index_add_(0, torch.from_numpy(np.repeat(np.arange(len(rows)), counts)), self.inner.gather(members).double())
        return (sums / torch.from_numpy(counts)[:, None]).to(DTYPES[self.dtype][0])

    def fingerprint(self) -> str:
        return digest_of("mean", self.inner.fingerprint(), self.group.astype(np.int64))


class UnfinishedRows:
    """Rows of a capture that did not finish: their number is known, reading them is refused."""

    def __init__(self, inner: Source, message: str) -> None:
        self.n, self.d, self.dtype, self.message = inner.n, inner.d, inner.dtype, message

    def read(self, start: int, stop: int) -> Tensor:
        raise StoreIncompleteError(self.message)

    def gather(self, rows: np.ndarray) -> Tensor:
        raise StoreIncompleteError(self.message)

    def fingerprint(self) -> str:
        raise StoreIncompleteError(self.message)

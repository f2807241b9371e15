"""Shards and batches: which stimuli run together. Nothing here looks at more than the lengths inside one shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from inscape.errors import StimuliError

# What one shard holds across all of its sites: large enough for the disk, small enough that a run never holds more than it says.
SHARD_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Limits:
    """The most that one batch may hold: `tokens` after padding (samples, for sounds) and `size` stimuli."""

    tokens: int
    size: int

    def __post_init__(self) -> None:
        for name, value in (("batch_tokens", self.tokens), ("batch_size", self.size)):
            if value < 1:
                raise StimuliError(f"{name}={value} leaves no batch; give 1 or more")

    def halved(self, count: int, longest: int) -> Limits:
        """Limits under which a batch of `count` stimuli padded to `longest` is cut in two."""
        return Limits(max(1, min(self.tokens, longest * (count // 2))), self.size if longest > 1 else max(1, min(self.size, count // 2)))


def shard_size(n: int, row_bytes: float) -> int:
    """Stimuli per shard, so that a shard holds about `SHARD_BYTES` when a stimulus gives `row_bytes` over all sites."""
    return int(max(1, min(n, SHARD_BYTES // max(1.0, row_bytes))))


def shards(n: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(index, start, stop) of each shard: `size` consecutive stimuli, the last one shorter."""
    for index, start in enumerate(range(0, n, size)):
        yield index, start, min(n, start + size)


def batches(lengths: np.ndarray, groups: np.ndarray, limits: Limits) -> list[np.ndarray]:
    """Batches of similar length within the limits (but of at least one stimulus); only stimuli of one group share a batch.

    Sorting is stable, so equal lengths keep their order and the outcome depends on the arguments alone.
    """
    order = np.lexsort((lengths, groups))
    found: list[np.ndarray] = []
    start = 0
    for stop in range(1, len(order) + 1):
        if stop < len(order):
            count, longest = stop - start + 1, int(lengths[order[stop]])
            if count <= limits.size and longest * count <= limits.tokens and groups[order[stop]] == groups[order[start]]:
                continue
        found.append(order[start:stop])
        start = stop
    return found

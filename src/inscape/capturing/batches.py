"""Shards and batches: which stimuli run together. Nothing here looks at more than the lengths inside one shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from inscape.errors import StimuliError

# What one shard holds across all of its sites: large enough for the disk, small enough that a run never holds more than it says.
SHARD_BYTES = 128 * 2**20
# On accelerators a shard must have room for several of their larger batches.
ACCELERATOR_SHARD_BYTES = 1024 * 2**20


@dataclass(frozen=True)
class Limits:
    """The most that one batch may hold: `tokens` after padding (samples, for sounds) and `size` stimuli."""

    tokens: int
    size: int

    def __post_init__(self) -> None:
        for name, value in (("batch_tokens", self.tokens), ("batch_size", self.size)):
            if value < 1:
                raise StimuliError(f"{name}={value} leaves no batch; give 1 or more")

    @property
    def overhead(self) -> int:
        """What one more batch costs, in tokens: reading the weights and starting the work."""
        return max(1, self.tokens // 64)

    def on(self, device: str) -> Limits:
        """The limits of a kind of device: accelerators need larger batches to be busy."""
        return self if device == "cpu" else Limits(self.tokens * 8, self.size * 4)

    def halved(self, count: int, longest: int) -> Limits:
        """Limits under which a batch of `count` stimuli padded to `longest` is cut in two."""
        return Limits(max(1, min(self.tokens, longest * (count // 2))), self.size if longest > 1 else max(1, min(self.size, count // 2)))


def shard_size(n: int, row_bytes: float, device: str = "cpu") -> int:
    """Stimuli per shard, so that a shard holds about `SHARD_BYTES` when a stimulus gives `row_bytes` over all sites."""
    room = SHARD_BYTES if device == "cpu" else ACCELERATOR_SHARD_BYTES
    return int(max(1, min(n, room // max(1.0, row_bytes))))


def shards(n: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(index, start, stop) of each shard: `size` consecutive stimuli, the last one shorter."""
    for index, start in enumerate(range(0, n, size)):
        yield index, start, min(n, start + size)


def batches(lengths: np.ndarray, groups: np.ndarray, limits: Limits) -> list[np.ndarray]:
    """Batches of similar length within the limits (but of at least one stimulus); only stimuli of one group share a batch.

    Sorted by length, stimuli are cut where the padding and the cost of further batches are least together: each batch costs its padded
    tokens and `limits.overhead`. Sorting is stable, so equal lengths keep their order and the outcome depends on the arguments alone.
    """
    order = np.lexsort((lengths, groups))
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    return [batch for part in np.split(order, ends) for batch in _cut(part, lengths[part].astype(np.int64), limits)]


def _cut(members: np.ndarray, lengths: np.ndarray, limits: Limits) -> list[np.ndarray]:
    """The cheapest cut of stimuli that are sorted by length: the best end of every beginning, found from the front."""
    n, longest = len(members), int(lengths[-1]) if len(lengths) else 0
    if n and longest == int(lengths[0]):  # nothing to weigh: batches are as large as may be
        most = max(1, min(limits.size, limits.tokens // max(1, longest)))
        return [members[i : i + most] for i in range(0, n, most)]
    cost, begins = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    for stop in range(1, n + 1):
        longest = int(lengths[stop - 1])
        most = max(1, min(limits.size, limits.tokens // max(1, longest), stop))
        total = cost[stop - most : stop] + np.arange(most, 0, -1) * longest
        start = stop - 1 - int(total[::-1].argmin())  # among equals the smallest last batch, so that the first ones are full
        cost[stop], begins[stop] = total[start - stop + most] + limits.overhead, start
    found: list[np.ndarray] = []
    while n:
        found.append(members[begins[n] : n])
        n = int(begins[n])
    return found[::-1]

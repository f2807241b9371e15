"""Bytes before they are spent: what a capture will take, whether there is room for it, and what to do when there was not."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import torch

from inscape.arrays import format_bytes, parse_bytes
from inscape.capturing.batches import Limits
from inscape.errors import MemoryBudgetError
from inscape.store.remote import RemotePath, place_of

# Runs beyond this many bytes say so before they begin.
ANNOUNCED = 10**9


# How drivers and allocators say that there is no room, beside the exceptions that say it by their class.
_NO_ROOM = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "failed to allocate", "memoryallocation")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device; smaller batches then help."""
    if isinstance(error, MemoryBudgetError):
        return False
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _NO_ROOM)


def make_room(device: torch.device) -> None:
    """Gives back what the device's allocator keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Halvings:
    """The limits of batches that were cut because memory ran out, each with the shard from which on it holds.

    Attributes:
        records: what the store notes: shard, batch_tokens, batch_size, and for a part of a store the shard at which the part ends.
    """

    def __init__(self) -> None:
        self.records: list[dict[str, int]] = []
        self._until: int | None = None

    def resume(self, known: list[dict[str, int]], own: range, shards: int, tight: Limits | None = None) -> None:
        """Takes up what earlier runs noted about the shards `own`, of `shards` altogether.

        `tight` are limits that turned out to be needed before the run. What was noted since then, at the first shard of all, is kept where
        that shard is one of these: what another part's shards needed says nothing about them.
        """
        self._until = own.stop if len(own) < shards else None
        fresh = [] if tight is None else [self._record(own.start, tight)]
        if own.start == 0:
            fresh += [self._record(r["shard"], Limits(r["batch_tokens"], r["batch_size"])) for r in self.records]
        self.records = [*known, *(record for record in fresh if record not in known)]

    def add(self, shard: int, limits: Limits) -> None:
        """Notes new limits."""
        self.records.append(self._record(shard, limits))

    def limits(self, begun: Limits, shard: int) -> Limits:
        """The limits that hold at a shard, when the run was begun with `begun`."""
        for record in self.records:
            if record["shard"] <= shard:
                begun = Limits(record["batch_tokens"], record["batch_size"])
        return begun

    def _record(self, shard: int, limits: Limits) -> dict[str, int]:
        end = {} if self._until is None else {"until": self._until}
        return {"shard": shard, "batch_tokens": limits.tokens, "batch_size": limits.size, **end}


def available_memory() -> int | None:
    """Bytes that this process may still take, by the kernel and its container; None where neither says."""
    found: list[int] = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass
    if not found and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return max(0, min(found)) if found else None


def check_room(needed: float, to: str | Path | None, memory: str | int | None) -> None:
    """Refuses a run that cannot end well: more rows than memory (without `to`) or than free disk; announces large ones.

    Raises:
        MemoryBudgetError: the rows do not fit; the message gives both amounts.
    """
    if needed > ANNOUNCED:
        where = "in memory" if to is None else f"in {to}"
        print(f"inscape: this capture will hold {format_bytes(needed)} {where}", file=sys.stderr)
    if to is None:
        room = parse_bytes(memory) if memory is not None else available_memory()
        if room is not None and needed > 0.9 * room:
            raise MemoryBudgetError(
                f"the rows take {format_bytes(needed)} and {format_bytes(room)} of memory are free; give to='a/folder' to write them to "
                "disk, or ask for fewer sites, fewer tokens or dtype='float16'"
            )
        return
    place = place_of(to)
    if isinstance(place, RemotePath):
        return  # only what waits to be sent takes room here, a shard at a time
    folder = place.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise MemoryBudgetError(
            f"the store takes {format_bytes(needed)} and {format_bytes(free)} are free at {folder}; free some space, choose another "
            "folder, or ask for fewer sites, fewer tokens or dtype='float16'"
        )

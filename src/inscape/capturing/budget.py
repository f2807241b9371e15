"""Bytes before they are spent: what a capture will take, and whether there is room for it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from inscape.arrays import format_bytes, parse_bytes
from inscape.errors import MemoryBudgetError

# Runs beyond this many bytes say so before they begin.
ANNOUNCED = 10**9


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
    folder = Path(to).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise MemoryBudgetError(
            f"the store takes {format_bytes(needed)} and {format_bytes(free)} are free at {folder}; free some space, choose another "
            "folder, or ask for fewer sites, fewer tokens or dtype='float16'"
        )

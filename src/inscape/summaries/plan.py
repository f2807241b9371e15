"""What a run will cost, decided before it starts: routes, bytes, operations, passes over the rows, seconds."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from inscape.arrays import format_bytes, parse_bytes
from inscape.errors import MemoryBudgetError

# Multiply-adds of dense solvers as multiples of d³, fitted to LAPACK on d = 512 … 4,096: they run far below GEMM speed.
EIGENVALUES = 5.0
EIGENVECTORS = 15.0
SINGULAR_VALUES = 12.0

# The jackknife takes the most groups whose extra time stays within this allowance of the point estimate.
GROUP_CHOICES = (32, 16, 8)
ALLOWED_RATIO = 10.0
ALLOWED_SECONDS = 10.0


@dataclass(frozen=True)
class Step:
    """One part of a plan: what is computed, by which route, at what cost.

    Attributes:
        what: the summary and for how many sites or pairs.
        route: "resident" (rows held in memory), "streamed" (blocks from the store), "tiles" (kernel tiles), "moments", "graph".
        bytes: most memory this part holds at once.
        flops: multiply-adds.
        passes: how often the rows are read.
    """

    what: str
    route: str
    bytes: int
    flops: float
    passes: int


@dataclass(frozen=True)
class Plan:
    """Routes and costs of a `measure` or `compare` call, without running it.

    Attributes:
        steps: the parts, in the order in which they run.
        memory: bytes allowed.
        groups: groups that the jackknife will leave out; 0 without intervals.
        seconds: time the steps need at this machine's measured speed; an estimate within a factor of about two.
    """

    steps: tuple[Step, ...]
    memory: int
    groups: int
    seconds: float

    @property
    def bytes(self) -> int:
        """Peak memory over the steps."""
        return max((step.bytes for step in self.steps), default=0)

    @property
    def flops(self) -> float:
        """Multiply-adds of all steps."""
        return sum(step.flops for step in self.steps)

    @property
    def passes(self) -> int:
        """Passes over the rows, all steps together."""
        return sum(step.passes for step in self.steps)

    def rows(self) -> list[dict[str, object]]:
        """The steps as plain dictionaries, for JSON."""
        return [vars(step).copy() for step in self.steps]

    def __str__(self) -> str:
        lines = [f"{'step':<44} {'route':<9} {'memory':>9} {'multiply-adds':>14} {'passes':>6}"]
        lines += [
            f"{step.what:<44} {step.route:<9} {format_bytes(step.bytes):>9} {step.flops:>14.2g} {step.passes:>6}" for step in self.steps
        ]
        intervals = f"jackknife over {self.groups} groups" if self.groups else "no intervals"
        lines.append(f"{intervals}; memory allowed {format_bytes(self.memory)}; about {format_seconds(self.seconds)} on this machine")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def format_seconds(seconds: float) -> str:
    """Seconds for people: 0.4 s, 3 min, 2.1 h."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@cache
def machine_rate() -> float:
    """Multiply-adds per second of an fp64 GEMM here and now, measured once per process in a few milliseconds."""
    a = torch.randn(384, 384, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.mm(a, a)  # the first call sets the library up
    start = time.perf_counter()
    for _ in range(3):
        torch.mm(a, a)
    return 3 * 384**3 / max(1e-6, time.perf_counter() - start)


def choose_groups(point: float, per_group: float, available: int, interval: str | int | None) -> int:
    """How many groups the jackknife leaves out.

    Args:
        point: multiply-adds of the estimate itself.
        per_group: multiply-adds that leaving one group out adds.
        available: distinct sources; a group needs at least one.
        interval: "auto", "jackknife", a number of groups, or None for no intervals.

    Returns:
        0 for no intervals; under "auto" the most of 32, 16 and 8 that cost no more than ten times the estimate plus 10 s.
    """
    if interval is None or interval == "bootstrap" or available < 2:
        return 0
    if isinstance(interval, int):
        return max(2, min(interval, available))
    if interval == "jackknife":
        return min(GROUP_CHOICES[0], available)
    allowed = ALLOWED_RATIO * point + ALLOWED_SECONDS * machine_rate()
    for groups in GROUP_CHOICES[:-1]:
        if groups * per_group <= allowed:
            return min(groups, available)
    return min(GROUP_CHOICES[-1], available)


def memory_budget(memory: str | int) -> int:
    """Bytes of `memory`, refused when too small to hold even one block of rows."""
    budget = parse_bytes(memory)
    if budget < 16 * 2**20:
        raise MemoryBudgetError(f"memory={memory!r} is {format_bytes(budget)}; at least 17 MB are needed to hold a block of rows")
    return budget


def require_fit(needed: int, budget: int, what: str, advice: str) -> None:
    """Raises `MemoryBudgetError` naming what does not fit and what to do."""
    if needed > budget:
        raise MemoryBudgetError(f"{what} needs {format_bytes(needed)}, but memory= allows {format_bytes(budget)}; {advice}")


def site_blocks(bytes_each: Sequence[int], budget: int) -> list[list[int]]:
    """Cuts sites into consecutive blocks that fit into `budget` together; a site that alone is larger makes a block of its own."""
    blocks: list[list[int]] = []
    used = 0
    for index, size in enumerate(bytes_each):
        if not blocks or used + size > budget:
            blocks.append([])
            used = 0
        blocks[-1].append(index)
        used += size
    return blocks

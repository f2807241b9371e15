"""Map over shards and merge the parts in an order that never depends on timing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from inscape.errors import TooFewStimuliError

Shard = TypeVar("Shard")
Part = TypeVar("Part")


def map_reduce(fn: Callable[[Shard], Part], shards: Iterable[Shard], merge: Callable[[Part, Part], Part], *, workers: int = 1) -> Part:
    """`fn` over all shards, merged pairwise by a fixed binary tree over their order.

    Floating-point sums depend on their order; here it is a function of the number of shards alone, so the result is the same bit
    for bit with any number of workers and any order of completion. At most log2(shards) + 2 · workers parts are alive at a time.

    Args:
        fn: computes the part of one shard; run by several threads when `workers` > 1.
        shards: what to map over, in order.
        merge: joins two neighboring parts, the earlier one first; it may change and return its first argument.
        workers: threads that run `fn`.

    Raises:
        TooFewStimuliError: there are no shards.
        Exception: whatever `fn` raised for the earliest failing shard, with a note that names the shard.

    Example:
        >>> map_reduce(lambda rows: rows.sum(0), view.batches(), torch.add, workers=2)
    """
    # A binary counter: two trees of the same height merge as soon as they are neighbors.
    stack: list[tuple[int, Part]] = []
    for part in _parts(fn, shards, workers):
        height = 0
        while stack and stack[-1][0] == height:
            part = merge(stack.pop()[1], part)
            height += 1
        stack.append((height, part))
    if not stack:
        raise TooFewStimuliError("there are no shards to go over (0 rows); give at least one")
    total = stack.pop()[1]
    while stack:
        total = merge(stack.pop()[1], total)
    return total


def _parts(fn: Callable[[Shard], Part], shards: Iterable[Shard], workers: int) -> Iterator[Part]:
    """The parts in the order of the shards."""
    numbered = enumerate(shards)
    if workers <= 1:
        for number, shard in numbered:
            yield _named(fn, number, shard)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Part]] = deque(pool.submit(_named, fn, *item) for item in islice(numbered, 2 * workers))
        try:
            while waiting:
                part = waiting.popleft().result()
                for item in islice(numbered, 1):
                    waiting.append(pool.submit(_named, fn, *item))
                yield part
        finally:
            for future in waiting:
                future.cancel()


def _named(fn: Callable[[Shard], Part], number: int, shard: Shard) -> Part:
    try:
        return fn(shard)
    except Exception as error:
        text = repr(shard)
        error.add_note(f"in shard {number}: {text if len(text) <= 200 else text[:199] + '…'}")
        raise

"""Shards are written by a thread of their own, so that hashing and the disk do not hold up the model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class Handover:
    """Calls `take` for one shard at a time, in order, beside the caller; an error comes out at the caller's next step.

    Example:
        >>> with Handover(writer.write_shard) as handover:
        ...     for shard in shards:
        ...         handover.give(shard.index, shard.rows, shard.values)
    """

    def __init__(self, take: Callable[..., None]) -> None:
        self._take = take
        self._threads = ThreadPoolExecutor(1, "inscape-writer")
        self._pending: Future[None] | None = None

    def give(self, *shard: Any) -> None:
        """Hands one shard over, once the one before it is done: no more than one waits in memory."""
        self.settle()
        self._pending = self._threads.submit(self._take, *shard)

    def settle(self) -> None:
        """Waits for the shard that is under way; raises what went wrong with it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Handover:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self.settle()
        finally:
            # What was handed over is written also when the model failed meanwhile: a run resumes behind it.
            self._threads.shutdown(wait=True)

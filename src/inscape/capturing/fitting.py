"""Work that is cut until it fits into memory: the probe one stimulus at a time, a shard in smaller batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from inscape.capturing.batches import Limits, batches
from inscape.capturing.budget import make_room, out_of_memory
from inscape.capturing.feeds import Feed
from inscape.capturing.probe import Wanted, run_probe
from inscape.errors import MemoryBudgetError
from inscape.models import Model


def fitting_probe(model: Model, feed: Feed, wanted: list[Wanted], *, trunk_only: bool) -> tuple[dict[str, Tensor], bool]:
    """What the probe saw, and whether two stimuli fit into memory together.

    Raises:
        MemoryBudgetError: not even one does.
    """
    try:
        return run_probe(model, feed, wanted, trunk_only=trunk_only), True
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    make_room(model.device)
    try:
        return run_probe(model, feed, wanted, trunk_only=trunk_only, together=False), False
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise MemoryBudgetError(
            f"not even one stimulus fits into memory ({error}); use a smaller dtype, another device, or device_map= to place parts of "
            "the model elsewhere"
        ) from error


def unless_short(model: Model, check: Callable[[], bool]) -> bool | None:
    """What a check says, or None where two stimuli do not fit into memory together."""
    try:
        return check()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    make_room(model.device)
    return None


def fill_shard(
    forward: Callable[[np.ndarray], None],
    lengths: np.ndarray,
    groups: np.ndarray,
    limits: Limits,
    *,
    begin: Callable[[], None],
    halved: Callable[[Limits], None],
    name: Callable[[int], str],
) -> Limits:
    """Runs all batches of a shard; too little memory starts it again with halved batches. Returns the limits that were enough.

    Args:
        forward: runs the stimuli at these places of the shard.
        lengths: of the shard's stimuli.
        groups: of which only members may share a batch.
        limits: to begin with.
        begin: forgets what a try before has collected.
        halved: is told of each new limit.
        name: the id of the stimulus at a place of the shard.

    Raises:
        MemoryBudgetError: one stimulus alone does not fit.
    """
    while True:
        begin()
        members = np.zeros(1, np.int64)
        try:
            for members in batches(lengths, groups, limits):
                forward(members)
            return limits
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            count, longest = len(members), int(lengths[members].max())
            if count == 1:
                raise MemoryBudgetError(
                    f"stimulus {name(int(members[0]))!r} alone (length {longest}) does not fit into memory: {error}. Shorten it with "
                    "max_length=..., or use a smaller dtype or another device"
                ) from error
            limits = limits.halved(count, longest)
        halved(limits)  # outside of the handler: the error's traceback holds the tensors of the pass that failed

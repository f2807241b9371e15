"""Defaults that follow from how much there is to train: batch, learning rate, and how the rate changes on the way."""

from __future__ import annotations

import math


def default_batch(rows: int) -> int:
    """About 300 steps at least: rows // 300 rounded down to a power of two, within 256 and 4096."""
    wanted = max(1, rows // 300)
    return min(4096, max(256, 2 ** int(math.log2(wanted))))


def default_rate(steps: int, width: int, batch: int, haste: float) -> float:
    """Learning rate of Adam: small for wide dictionaries and long runs, large for short ones.

    2.5·10⁻⁴ √(2¹⁴ / width) for 10⁵ steps, near what Gao et al. 2024 use; a run of fewer steps gets a rate that is larger by the power
    `haste` of how much shorter it is, and a batch below 1024 rows a rate that is smaller by its square root.
    """
    by_width = 2.5e-4 * math.sqrt(2**14 / width)
    by_steps = max(1.0, 1e5 / max(1, steps)) ** haste
    return min(2e-2, by_width * by_steps * min(1.0, math.sqrt(batch / 1024)))


def rate_at(step: int, steps: int, rate: float) -> float:
    """The rate of a step: a rise over the first 3 %, then linearly down over the last 40 %."""
    done = (step + 0.5) / max(1, steps)
    return rate * min(1.0, done / 0.03, (1 - done) / 0.4)


def default_patience(rows: int, batch: int) -> int:
    """Rows of silence after which a feature counts as dead: a twentieth of the run, ten batches at least, ten million rows at most."""
    return min(10_000_000, max(10 * batch, rows // 20))

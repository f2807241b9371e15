"""Rows of attention patterns: one per query, with a unit for each head and key; and the masks that their reducers take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from inscape.errors import StimuliError


@dataclass(frozen=True)
class PatternUnits:
    """What the units of an attention pattern are.

    Attributes:
        heads: number of heads.
        keys: keys per head: those of the longest stimulus.
        tower: the stack whose positions the keys are; `None` where they are none, so that none is padding.
    """

    heads: int
    keys: int
    tower: str | None = ""

    def table(self, per_head: bool) -> dict[str, np.ndarray]:
        """The unit table: the head of each unit, and unless there is one unit `per_head` its key."""
        heads = np.arange(self.heads)
        return {"head": heads} if per_head else {"head": np.repeat(heads, self.keys), "key": np.tile(np.arange(self.keys), self.heads)}


@dataclass(frozen=True)
class Keys:
    """Where the real keys of each stimulus stand in a batch: the positions `starts` to `starts + counts` of k.

    Attributes:
        starts: [b], 0 where padding is on the right or there is none.
        counts: [b].
        length: k.
    """

    starts: Int[Tensor, " b"]
    counts: Int[Tensor, " b"]
    length: int

    @classmethod
    def of(cls, b: int, k: int, real: np.ndarray | None, left: bool, device: torch.device) -> Keys:
        """`real` is the number of real keys per stimulus, or None when all are; `left` says where padding stands."""
        counts = torch.full((b,), k) if real is None else torch.from_numpy(np.asarray(real, np.int64))
        starts = k - counts if left else torch.zeros_like(counts)
        return cls(starts.to(device), counts.to(device), k)

    def mask(self) -> Bool[Tensor, "b k"]:
        """True at real keys."""
        place = torch.arange(self.length, device=self.starts.device)
        return (place >= self.starts[:, None]) & (place < (self.starts + self.counts)[:, None])


def spread(chosen: Float[Tensor, "rows heads k"], owner: Int[Tensor, " rows"], keys: Keys, longest: int) -> Float[Tensor, "rows units"]:
    """Rows of a pattern as units: head by head the weight of key 0, 1, … `longest` - 1, each counted from the first real key; zero beyond.

    `owner` is the stimulus of each row.

    Raises:
        StimuliError: a stimulus has more than `longest` keys.
    """
    most = int(keys.counts.max())
    if most > longest:
        raise StimuliError(
            f"an attention pattern has {most} keys where the first stimulus has {longest}, so they cannot be units of one store; capture "
            "stimuli of one length, or a reducer (for instance 'attn_pattern|entropy')"
        )
    place = torch.arange(most, device=chosen.device)
    rows = chosen.new_zeros(*chosen.shape[:2], longest)
    at = (keys.starts[owner][:, None] + place).clamp(max=keys.length - 1)
    outside = place >= keys.counts[owner][:, None]
    rows[..., :most] = chosen.take_along_dim(at[:, None], 2).masked_fill(outside[:, None], 0.0)
    return rows.flatten(1)

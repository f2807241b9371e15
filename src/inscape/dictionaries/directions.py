"""Cosines between directions, without ever forming all pairs at once."""

from __future__ import annotations

import torch
from torch import Tensor

from inscape.dictionaries.base import unit_rows

# Directions of one side that meet all of the other at a time.
_BLOCK = 1024


def best_matches(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of a [p, d] the largest cosine with a row of b [q, d], and which row that is; [p] each."""
    a, b = unit_rows(a), unit_rows(b)
    values, places = zip(*((a[at : at + _BLOCK] @ b.T).max(1) for at in range(0, len(a), _BLOCK)), strict=True)
    return torch.cat(values), torch.cat(places)


def largest_cosines(a: Tensor) -> Tensor:
    """For each row of a [m, d] the largest cosine with another row, [m]; −1 for a single row."""
    a = unit_rows(a)
    found: list[Tensor] = []
    for at in range(0, len(a), _BLOCK):
        part = a[at : at + _BLOCK] @ a.T
        own = torch.arange(len(part))
        part[own, own + at] = -1.0
        found.append(part.amax(1))
    return torch.cat(found)


def paired_cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of row i of a with row i of b, [m]."""
    return torch.linalg.vecdot(unit_rows(a), unit_rows(b))

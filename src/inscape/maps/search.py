"""Nearest rows by cosine: ranks of partners, and what lies nearest, exactly and block by block."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_CELLS = 2**23  # similarities that are held at a time


def unit_rows(rows: Tensor) -> Tensor:
    """Rows of length 1; a row of zeros stays."""
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)


def blocks(count: int, width: int) -> list[slice]:
    """Slices of rows such that a block of similarities with `width` others stays small."""
    size = max(1, _CELLS // max(1, width))
    return [slice(at, min(at + size, count)) for at in range(0, count, size)]


def mean_of_nearest(rows: Float[Tensor, "n d"], others: Float[Tensor, "m d"], k: int) -> Float[Tensor, " n"]:
    """The mean cosine of each row with its k nearest others; all rows of length 1."""
    k = min(k, len(others))
    return torch.cat([(rows[part] @ others.T).topk(k, dim=1).values.mean(1) for part in blocks(len(rows), len(others))])


def partner_ranks(
    queries: Float[Tensor, "n d"], gallery: Float[Tensor, "m d"], partner: Int[Tensor, " n"], *, csls: int = 0
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """How many rows of the gallery are closer to each query than its partner, and how many others are equally close; n m d.

    Args:
        queries: rows of length 1.
        gallery: rows of length 1.
        partner: row of the gallery that belongs to each query.
        csls: neighbors whose mean cosine is taken off on both sides (cross-domain similarity local scaling); 0 for the plain cosine.
    """
    crowd_g = mean_of_nearest(gallery, queries, csls) if csls else None
    closer: list[Tensor] = []
    equal: list[Tensor] = []
    for part in blocks(len(queries), len(gallery)):
        # 2 cos − r(query) − r(gallery): what is taken off of one query is the same for all of the gallery.
        near = queries[part] @ gallery.T if crowd_g is None else 2 * (queries[part] @ gallery.T) - crowd_g
        own = near.gather(1, partner[part].unsqueeze(1))
        slack = 64 * torch.finfo(near.dtype).eps  # equal rows give products that differ in the last digits
        closer.append((near > own + slack).sum(1))
        equal.append(((near - own).abs() <= slack).sum(1) - 1)
    return torch.cat(closer).double(), torch.cat(equal).double()


def hits(closer: Tensor, equal: Tensor, k: int) -> Tensor:
    """The chance that a partner is among the k nearest when ties are broken at random, per query."""
    return ((k - closer) / (equal + 1)).clamp(0, 1)

"""Which activations become codes: the largest of each row, the largest of a batch, or all above a threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from inscape.dictionaries.codes import Codes, from_mask, from_pairs

_BITS = {torch.float32: torch.int32, torch.float64: torch.int64, torch.bfloat16: torch.int16, torch.float16: torch.int16}

# Columns of a group when the largest entries of rows are looked for.
_GROUP = 4


def top_of_rows(blocks: Iterable[Tensor], k: int) -> Codes:
    """The k largest activations of each row; those below 0 count as 0."""
    found: list[tuple[Tensor, Tensor]] = []
    width = 0
    for block in blocks:
        width = block.shape[1]
        if block.device.type == "cpu":
            # The bits of numbers above 0, read as whole numbers, have the same order, and whole numbers are compared faster.
            values, indices = top(block.view(_BITS[block.dtype]), k)
            found.append((values.view(block.dtype), indices))
        else:
            found.append(top(block, k))
    values, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return from_pairs(indices, values.clamp_(min=0), width)


def top(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of each row [n, m] and their places, in no order; the same entries as `torch.topk`, but for ties.

    The groups of columns with the k largest maxima hold the k largest entries. Maxima of groups are cheap where a selection is not, so
    groups are chosen first, from groups of groups in turn, and entries only from what the chosen ones hold.
    """
    n, groups = len(rows), rows.shape[1] // _GROUP
    if rows.shape[1] % _GROUP or groups < 2 * k or rows.device.type != "cpu" or not rows.is_contiguous():
        largest = rows.topk(k, dim=1, sorted=False)
        return largest.values, largest.indices
    grouped = rows.view(n, _GROUP, groups)
    chosen = top(grouped.amax(1), k)[1]
    inside = grouped.gather(2, chosen[:, None].expand(n, _GROUP, k)).flatten(1).topk(k, dim=1, sorted=False)
    member = torch.div(inside.indices, k, rounding_mode="floor")
    return inside.values, chosen.gather(1, inside.indices - member * k).add_(member, alpha=groups)


def above(blocks: Iterable[Tensor], threshold: Tensor | float) -> Codes:
    """All activations above a threshold (a number, or one for each feature)."""
    return Codes.cat([from_mask(block, block > threshold) for block in blocks])


def top_of_batch(blocks: Iterator[Tensor], k: int, rows: int, guess: float | None) -> tuple[Codes, float] | None:
    """The k·rows largest positive activations of a batch, and the smallest of them.

    Only what lies above `guess` is collected; `None` where that is too little, so that the caller asks again with a lower guess.
    """
    parts: list[Codes] = []
    for block in blocks:
        if guess is None:  # the first block says about where the threshold lies
            wanted = min(block.numel(), max(1, (3 * k * len(block)) // 2))
            guess = max(0.0, float(block.flatten().topk(wanted).values[-1]))
        parts.append(from_mask(block, block > guess))
    codes = Codes.cat(parts)
    total = k * rows
    if len(codes.values) > total:
        kept = codes.values.topk(total, sorted=False)
        return _only(codes, kept.indices.sort().values), float(kept.values.min())
    if len(codes.values) == total or guess == 0.0:
        return codes, float(codes.values.min()) if len(codes.values) else 0.0
    return None


def largest(blocks: Callable[[], Iterator[Tensor]], k: int, rows: int, kept: dict[str, Tensor]) -> tuple[Codes, float]:
    """The k·rows largest positive activations of a batch, and the smallest of them; `kept` remembers about where they begin.

    Args:
        blocks: makes the activations, again where the first guess was too high.
        k: how many a row, on average.
        rows: rows of the batch.
        kept: holds the last threshold as "threshold"; changed in place.
    """
    guess = 0.9 * float(kept["threshold"]) if "threshold" in kept else None
    found = top_of_batch(blocks(), k, rows, guess)
    while found is None:
        guess = 0.0 if guess is None or guess < 1e-3 else guess / 2
        found = top_of_batch(blocks(), k, rows, guess)
    kept["threshold"] = torch.tensor(found[1])
    return found


def _only(codes: Codes, entries: Tensor) -> Codes:
    from inscape.dictionaries.codes import offsets_of

    rows = codes.rows[entries]
    return Codes(codes.indices[entries], codes.values[entries], offsets_of(torch.bincount(rows, minlength=codes.n)), codes.width)

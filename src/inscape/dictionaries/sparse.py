"""Products with sparse codes, at a cost that depends on the number of active features and not on the width.

With e entries and d units: `decode`, `inner` and `gather_by_feature` cost e·d multiplications each, where the dense products cost n·m·d.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inscape.dictionaries.codes import Codes

# Entries that the plain form of `inner` takes at a time.
_CHUNK = 2**15

# Above this share of active features the dense products are the faster ones.
DENSE = 0.05


def is_dense(codes: Codes) -> bool:
    """Whether so many features are active that dense products are faster."""
    return len(codes.indices) > DENSE * codes.n * codes.width


def _spread(codes: Codes, values: Tensor) -> Tensor:
    dense = values.new_zeros(codes.n, codes.width)
    dense[codes.rows, codes.indices] = values
    return dense


def decode(codes: Codes, directions: Tensor) -> Tensor:
    """Σ_i z_i w_i for each row, [n, d]; directions [m, d] row by row."""
    if is_dense(codes):
        return _spread(codes, codes.values) @ directions
    return F.embedding_bag(codes.indices, directions, codes.offsets, mode="sum", per_sample_weights=codes.values, include_last_offset=True)


def inner(codes: Codes, rows: Tensor, directions: Tensor) -> Tensor:
    """⟨row, w_i⟩ at every entry, [e]; rows [n, d], directions [m, d]."""
    if len(codes.indices) == 0:
        return codes.values.new_zeros(0)
    if is_dense(codes):
        return (rows @ directions.T)[codes.rows, codes.indices]
    op = getattr(torch.ops.aten, "_embedding_bag_per_sample_weights_backward", None)
    if op is not None and rows.is_contiguous() and directions.is_contiguous():
        # The gradient of a weighted bag by its weights is exactly this; torch has no public name for it.
        return op(rows, directions, codes.indices, codes.offsets[:-1], codes.rows, 0, -1)
    return inner_plain(codes, rows, directions)


def inner_plain(codes: Codes, rows: Tensor, directions: Tensor) -> Tensor:
    """`inner` from public operations alone, a chunk of entries at a time."""
    found = [
        torch.linalg.vecdot(rows[codes.rows[start : start + _CHUNK]], directions[codes.indices[start : start + _CHUNK]])
        for start in range(0, len(codes.indices), _CHUNK)
    ]
    return torch.cat(found) if found else codes.values.new_zeros(0)


def gather_by_feature(codes: Codes, weights: Tensor, rows: Tensor) -> Tensor:
    """Σ over entries of a feature of weight · row, [m, d]: the gradient of directions; weights [e], rows [n, d]."""
    if is_dense(codes):
        return _spread(codes, weights).T @ rows
    order, starts = codes.by_feature
    return F.embedding_bag(codes.rows[order], rows, starts, mode="sum", per_sample_weights=weights[order], include_last_offset=True)


def sum_by_feature(codes: Codes, weights: Tensor) -> Tensor:
    """Σ over entries of a feature of weight, [m]."""
    return weights.new_zeros(codes.width).index_add_(0, codes.indices, weights)

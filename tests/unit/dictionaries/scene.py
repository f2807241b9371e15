"""Rows that are sparse combinations of known features."""

from __future__ import annotations

import numpy as np


def features(count: int = 40, d: int = 16, seed: int = 101) -> np.ndarray:
    """Unit directions [count, d], drawn with a seed that no training uses."""
    found = np.random.default_rng(seed).standard_normal((count, d))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def sparse_rows(n: int = 4096, d: int = 16, count: int = 40, seed: int = 102) -> np.ndarray:
    """Rows [n, d], each the sum of three features, beside an offset."""
    rng = np.random.default_rng(seed)
    codes = np.zeros((n, count))
    for row in codes:
        row[rng.choice(count, 3, replace=False)] = rng.uniform(0.2, 1.2, 3)
    return codes @ features(count, d) * 5 + 2

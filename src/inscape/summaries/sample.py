"""A sample of rows that is the same at every site and system, because only what a row is decides whether it is in."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import as_rows
from inscape.errors import DegenerateInputError, StoreMismatchError
from inscape.summaries.base import Summary

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def row_keys(ids: Any, position: Any = None, repeat: Any = None, *, seed: int = 0) -> np.ndarray:
    """Hash keys [n] (uint64) of rows named by stimulus id, position and repeat, the same on every platform; n + ids hashes.

    Args:
        ids: stimulus ids [n]; numbers count as their decimal text.
        position: token, patch or frame numbers [n]; 0 by default.
        repeat: repeat numbers [n]; 0 by default.
        seed: another seed gives another order.
    """
    names, number = np.unique(np.asarray(ids).astype(str), return_inverse=True)
    salt = seed.to_bytes(8, "little", signed=True)
    hashed = [int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, key=salt).digest(), "little") for name in names.tolist()]
    keys = np.asarray(hashed, dtype=np.uint64)[number]
    for part in (position, repeat):
        count = np.zeros(keys.shape[0], dtype=np.uint64) if part is None else np.asarray(part).astype(np.int64).astype(np.uint64)
        keys = _mix(keys + _GOLDEN * (count + np.uint64(1)))
    return keys


def sample_rows(ids: Any, position: Any = None, repeat: Any = None, *, m: int, seed: int = 0) -> np.ndarray:
    """Row numbers, ascending, of the m rows with the smallest keys (all rows where there are fewer). n log n.

    Example:
        >>> sample_rows(["a", "b", "c"], m=2)       # the same two stimuli wherever these three occur
    """
    if m < 1:
        raise DegenerateInputError(f"a sample needs m ≥ 1 rows, got m = {m}")
    keys = row_keys(ids, position, repeat, seed=seed)
    return np.sort(np.argsort(keys, kind="stable")[:m])


class Sample(Summary):
    """The m rows with the smallest keyed hashes of (stimulus id, position, repeat).

    Cost of a pass: n hashes; m d values. Rows are held in the order of their keys, so samples of two sites pair row by row.

    Example:
        >>> sample = Sample.of(X, ids, m=500)       # [n, d], [n]
        >>> sample.rows, sample.ids
    """

    additive: ClassVar[bool] = True

    def __init__(self, m: int, seed: int = 0) -> None:
        if m < 1:
            raise DegenerateInputError(f"a sample needs m ≥ 1 rows, got m = {m}")
        self.m = m
        self.seed = seed
        self.seen = 0
        self.keys = np.zeros(0, dtype=np.uint64)
        self.ids = np.zeros(0, dtype=str)
        self.position = np.zeros(0, dtype=np.int64)
        self.repeat = np.zeros(0, dtype=np.int64)
        self._rows: Tensor | None = None

    @classmethod
    def of(cls, X: Any, ids: Any, position: Any = None, repeat: Any = None, *, m: int, seed: int = 0) -> Sample:
        """The sample of rows X [n, d] named by ids [n] and, where a stimulus has several rows, position [n] and repeat [n].

        Raises:
            DegenerateInputError: X is not [n, d] or holds NaN or infinity, the names do not fit, or m < 1.
        """
        return cls(m, seed).update(X, ids, position, repeat)

    def update(self, X: Any, ids: Any, position: Any = None, repeat: Any = None) -> Sample:
        """Adds named rows X [b, d], in place; they must not have been added before."""
        rows = as_rows(X, minimum=0)
        names = np.asarray(ids).astype(str)
        if names.shape != (rows.shape[0],):
            raise DegenerateInputError(f"ids have shape {names.shape}; expected [{rows.shape[0]}], one per row")
        if self._rows is not None and self._rows.shape[1] != rows.shape[1]:
            raise StoreMismatchError(f"the sample is of {self._rows.shape[1]} units, the new rows have shape {tuple(rows.shape)}")
        keys = row_keys(names, position, repeat, seed=self.seed)
        zeros = np.zeros(names.shape[0], dtype=np.int64)
        places = zeros if position is None else np.asarray(position, dtype=np.int64)
        repeats = zeros if repeat is None else np.asarray(repeat, dtype=np.int64)
        self.seen += rows.shape[0]
        low = np.argsort(keys, kind="stable")[: self.m]  # of the new rows only these can be in
        self._keep(keys[low], names[low], places[low], repeats[low], rows[torch.from_numpy(low).to(rows.device)])
        return self

    def merge(self, other: Sample) -> Sample:
        """The sample of both sets of rows: the m smallest keys of the two.

        Raises:
            StoreMismatchError: the samples have another m or seed, so they follow different rules.
        """
        if (self.m, self.seed) != (other.m, other.seed):
            raise StoreMismatchError(f"samples with m, seed = {self.m}, {self.seed} and {other.m}, {other.seed} follow different rules")
        result = Sample(self.m, self.seed)
        result.seen = self.seen + other.seen
        for part in (self, other):
            if part._rows is not None:
                result._keep(part.keys, part.ids, part.position, part.repeat, part._rows)
        return result

    @property
    def rows(self) -> Tensor:
        """The sampled rows in the order of their keys, [≤ m, d], in the dtype of the input."""
        if self._rows is None:
            raise DegenerateInputError("this sample holds no rows yet; call update(X, ids) first")
        return self._rows

    @property
    def n(self) -> int:
        """Number of rows in the sample."""
        return self.keys.shape[0]

    @property
    def d(self) -> int:
        """Number of units."""
        return self.rows.shape[1]

    def _keep(self, keys: np.ndarray, ids: np.ndarray, position: np.ndarray, repeat: np.ndarray, rows: Tensor) -> None:
        held = rows.clone() if self._rows is None else torch.cat([self._rows, rows])
        columns = [np.concatenate(pair) for pair in ((self.keys, keys), (self.ids, ids), (self.position, position), (self.repeat, repeat))]
        order = np.lexsort((columns[3], columns[2], columns[1], columns[0]))[: self.m]
        self.keys, self.ids, self.position, self.repeat = (column[order] for column in columns)
        self._rows = held[torch.from_numpy(order).to(held.device)]


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64: every input bit moves half of the output bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

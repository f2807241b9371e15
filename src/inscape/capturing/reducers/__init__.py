"""Reducers: one file each; `blocks.*.resid_post|token_cosine` runs one inside the hook instead of storing the sequence."""

from __future__ import annotations

from inscape.capturing.reducers.base import Reducer, get, names, reducer

__all__ = ["Reducer", "get", "names", "reducer"]

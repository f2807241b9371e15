"""Running one function over many shards."""

from __future__ import annotations

from inscape.engine.map_reduce import map_reduce

__all__ = ["map_reduce"]

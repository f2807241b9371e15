"""Activations on disk or in memory: rows of sites with an index to stimuli."""

from __future__ import annotations

from inscape.store.building import view_of
from inscape.store.manifest import Manifest, ShardEntry, SiteSpec
from inscape.store.opening import open_store as open
from inscape.store.pairing import pair_rows, pair_views
from inscape.store.store import Store
from inscape.store.tables import split_repeats, stimulus_table
from inscape.store.view import View
from inscape.store.writer import StoreWriter

__all__ = [
    "Manifest",
    "ShardEntry",
    "SiteSpec",
    "Store",
    "StoreWriter",
    "View",
    "open",
    "pair_rows",
    "pair_views",
    "split_repeats",
    "stimulus_table",
    "view_of",
]

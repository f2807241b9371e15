"""Maps between spaces: fit one, test it elsewhere, stitch networks through it; and how many units a network needs."""

from inscape.maps.base import Fit, MapMethod, PairedRows, map_method, registered
from inscape.maps.fitted import Map
from inscape.maps.fitting import align
from inscape.maps.merging import MergedFeatures, merge_features
from inscape.maps.stitching import Stitched, stitch, stitching_checks, untrained

__all__ = [
    "Fit",
    "Map",
    "MapMethod",
    "MergedFeatures",
    "PairedRows",
    "Stitched",
    "align",
    "map_method",
    "merge_features",
    "registered",
    "stitch",
    "stitching_checks",
    "untrained",
]

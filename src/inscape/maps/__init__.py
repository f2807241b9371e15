"""Maps between spaces: fit one, test it elsewhere, stitch networks through it; and how many units a network needs."""

from inscape.maps.base import Fit, MapMethod, PairedRows, map_method, registered
from inscape.maps.fitted import Map
from inscape.maps.fitting import align

__all__ = ["Fit", "Map", "MapMethod", "PairedRows", "align", "map_method", "registered"]

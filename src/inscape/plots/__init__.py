"""Matplotlib figures from results: one file per kind of figure, no global state, light and dark."""

from inscape.plots.collapse import collapse_dashboard
from inscape.plots.curves import layer_curves
from inscape.plots.dimension import scale_curves
from inscape.plots.heads import head_map
from inscape.plots.heatmaps import site_heatmaps
from inscape.plots.mapped import map_scores
from inscape.plots.maps import map2d
from inscape.plots.massive import massive_map
from inscape.plots.matches import match_histograms, match_paths
from inscape.plots.merging import merge_curves
from inscape.plots.models import model_bars
from inscape.plots.persistence import persistence_diagrams
from inscape.plots.places import curve_figure
from inscape.plots.rdms import rdm_heatmaps
from inscape.plots.spectra import spectra
from inscape.plots.swaps import swap_routes
from inscape.plots.systems import system_map
from inscape.plots.trajectories import trajectories
from inscape.plots.unit_maps import fracture_maps, unit_maps

__all__ = [
    "collapse_dashboard",
    "curve_figure",
    "fracture_maps",
    "head_map",
    "layer_curves",
    "map2d",
    "map_scores",
    "massive_map",
    "match_histograms",
    "match_paths",
    "merge_curves",
    "model_bars",
    "persistence_diagrams",
    "rdm_heatmaps",
    "scale_curves",
    "site_heatmaps",
    "spectra",
    "swap_routes",
    "system_map",
    "trajectories",
    "unit_maps",
]

"""The few shared quantities that every measure is a closed form of, and the planner that picks a route."""

from inscape.summaries.base import Need, Summary
from inscape.summaries.blocks import needs_double
from inscape.summaries.classes import ClassMoments
from inscape.summaries.cross import CrossMoments
from inscape.summaries.direction_moments import DirectionMoments
from inscape.summaries.directions import Directions
from inscape.summaries.extremes import Extremes
from inscape.summaries.folds import FoldMoments
from inscape.summaries.gram import Gram
from inscape.summaries.landmarks import Landmarks
from inscape.summaries.moments import Moments
from inscape.summaries.neighbors import Neighbors
from inscape.summaries.plan import Plan, Step
from inscape.summaries.products import GramProducts
from inscape.summaries.rdm import RDM
from inscape.summaries.rows import SiteRows
from inscape.summaries.rowwise import LabeledRows, Rows
from inscape.summaries.sample import Sample, sample_rows
from inscape.summaries.sequences import SequenceMoments
from inscape.summaries.tiles import KernelTiles
from inscape.summaries.weights import Head, Weights

__all__ = [
    "RDM",
    "ClassMoments",
    "CrossMoments",
    "DirectionMoments",
    "Directions",
    "Extremes",
    "FoldMoments",
    "Gram",
    "GramProducts",
    "Head",
    "KernelTiles",
    "LabeledRows",
    "Landmarks",
    "Moments",
    "Need",
    "Neighbors",
    "Plan",
    "Rows",
    "Sample",
    "SequenceMoments",
    "SiteRows",
    "Step",
    "Summary",
    "Weights",
    "needs_double",
    "sample_rows",
]

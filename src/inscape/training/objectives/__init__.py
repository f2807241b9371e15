"""Terms, layers and schedules that keep a representation from collapsing: one file each."""

from __future__ import annotations

from inscape.training.objectives.base import Objective, objective, registered
from inscape.training.objectives.beta_schedule import beta_schedule
from inscape.training.objectives.decorrelation import decorrelation
from inscape.training.objectives.local_dimension import local_dimension
from inscape.training.objectives.sigma_reparam import sigma_reparam
from inscape.training.objectives.stopped_similarity import stopped_similarity
from inscape.training.objectives.variance_hinge import variance_hinge
from inscape.training.objectives.von_neumann_entropy import von_neumann_entropy

__all__ = [
    "Objective",
    "beta_schedule",
    "decorrelation",
    "local_dimension",
    "objective",
    "registered",
    "sigma_reparam",
    "stopped_similarity",
    "variance_hinge",
    "von_neumann_entropy",
]

"""Representational similarity analysis: stacks of dissimilarity matrices, and inference on models of them."""

from inscape.rsa.build import rdm
from inscape.rsa.models import FlexibleModel, interpolated, selected, weighted
from inscape.rsa.ratings import from_ratings
from inscape.rsa.rdms import RDMs

__all__ = ["FlexibleModel", "RDMs", "from_ratings", "interpolated", "rdm", "selected", "weighted"]

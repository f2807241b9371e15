"""Representational similarity analysis: stacks of dissimilarity matrices, and inference on models of them."""

from inscape.rsa.build import rdm
from inscape.rsa.ratings import from_ratings
from inscape.rsa.rdms import RDMs

__all__ = ["RDMs", "from_ratings", "rdm"]

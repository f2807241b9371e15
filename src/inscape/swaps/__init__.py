"""May one encoder take another's place? Retrieval before and after, with and without a new index."""

from inscape.swaps.report import Swap
from inscape.swaps.requirement import Requirement
from inscape.swaps.run import swap

__all__ = ["Requirement", "Swap", "swap"]

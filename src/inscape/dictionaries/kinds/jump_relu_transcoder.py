"""A transcoder whose features have thresholds of their own, as those of Gemma Scope have."""

from __future__ import annotations

from dataclasses import dataclass

from inscape.dictionaries.base import dictionary_kind
from inscape.dictionaries.kinds.jump_relu import JumpReLU
from inscape.dictionaries.pairs import Paired


@dictionary_kind(
    "JumpReLUTranscoder",
    example=lambda d: {"width": 4 * d, "l0": 6},
    source="Lieberum et al. 2024, Gemma Scope; Dunefsky et al. 2024 for transcoders",
)
@dataclass(frozen=True, repr=False)
class JumpReLUTranscoder(Paired, JumpReLU):
    """Reconstructs one site from another by features above a threshold that each learns: ŷ = z W_dec + b_dec (+ x W_skip).

    z = a · [a > θ] with a = x W_enc + b_enc; with θ = 0 that is a transcoder with ReLUs. Trained as JumpReLU is, with another target. Give
    `ix.decompose` the pair of sites, the read one first.

    Attributes:
        width: number of features, m.
        l0: features active in a row, on average; the penalty holds it near.
        penalty: weight of the distance from that target.
        bandwidth: width of the rectangle that stands in for the step's gradient, for rows scaled to mean square 1.
        auxiliary: weight of the loss in which dead features reconstruct what the others leave over, whatever their threshold.
        skip: adds a linear path around the features; what is linear then needs none.

    Example:
        >>> ix.dictionaries.JumpReLUTranscoder(width=8192, l0=32)
        JumpReLUTranscoder(width=8192)
    """

    @property
    def active(self) -> int:
        """Features of a row."""
        return self.l0

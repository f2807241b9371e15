"""What a part of a network does, in features: it reads what goes in and writes what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from inscape.dictionaries.base import dictionary_kind
from inscape.dictionaries.kinds.top_k import TopK
from inscape.dictionaries.pairs import Paired


@dictionary_kind(
    "Transcoder",
    example=lambda d: {"width": 4 * d, "k": 4, "skip": True},
    source="Dunefsky et al. 2024, Transcoders find interpretable LLM feature circuits; Paulo et al. 2025 for the skip",
)
@dataclass(frozen=True, repr=False)
class Transcoder(Paired, TopK):
    """Reconstructs one site from another, such as the output of an MLP from its input: ŷ = z W_dec + b_dec (+ x W_skip).

    z = relu(top_k(x W_enc + b_enc)). Give `ix.decompose` the pair of sites, the read one first. The directions that are written start as
    what a linear map of the first batch makes of those that are read.

    Attributes:
        width: number of features, m.
        k: features active in a row, at most.
        auxiliary: weight of the loss in which dead features reconstruct what the others leave over.
        coarse: lets the training choose in bfloat16, with exact strengths of what is chosen.
        skip: adds a linear path around the features; what is linear then needs none.

    Example:
        >>> ix.dictionaries.Transcoder(width=8192, k=32, skip=True)
        Transcoder(width=8192, skip=True)
    """

    @property
    def active(self) -> int:
        """Features of a row."""
        return self.k

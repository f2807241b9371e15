"""Features that several sites share: layers of a model, or one layer of two models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from inscape.dictionaries.base import dictionary_kind
from inscape.dictionaries.kinds.batch_top_k import BatchTopK


@dictionary_kind(
    "Crosscoder",
    example=lambda d: {"width": 4 * d, "k": 4},
    source="Lindsey et al. 2024, Sparse crosscoders; Minder et al. 2025 for BatchTopK in place of an L1 penalty",
)
@dataclass(frozen=True, repr=False)
class Crosscoder(BatchTopK):
    """One code for several sites: z is read from all of them, and each is reconstructed by directions of its own.

    Rows of the sites stand side by side, each scaled to mean square 1, so that W_enc and W_dec hold a block of units for each site. Codes
    are chosen as in BatchTopK, which does not push a feature out of the site where it is weak, as an L1 penalty does.
    `ix.dictionaries.site_shares` says how much of a feature lies in which site.

    Attributes:
        width: number of features, m.
        k: features active in a row on average.
        auxiliary: weight of the loss in which dead features reconstruct what the others leave over.

    Example:
        >>> ix.dictionaries.Crosscoder(width=8192, k=32)
        Crosscoder(width=8192)
    """

    sites: ClassVar[str] = "several"

"""What a part of a network does, in features: it reads what goes in and writes what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from inscape.dictionaries.base import Tensors, dictionary_kind, unit_rows
from inscape.dictionaries.codes import Codes
from inscape.dictionaries.core import Learned, Moment
from inscape.dictionaries.kinds.top_k import TopK
from inscape.errors import DictionaryError


@dictionary_kind(
    "Transcoder",
    example=lambda d: {"width": 4 * d, "k": 4, "skip": True},
    source="Dunefsky et al. 2024, Transcoders find interpretable LLM feature circuits; Paulo et al. 2025 for the skip",
)
@dataclass(frozen=True, repr=False)
class Transcoder(TopK):
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

    skip: bool = False
    sites: ClassVar[str] = "pair"
    centers: ClassVar[bool] = False

    def sides(self, views: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The first is read, the second written."""
        return tuple(views[:1]), tuple(views[1:])

    def shapes(self, d: int, out: int) -> dict[str, tuple[int, ...]]:
        """The linear path beside the matrices."""
        return {**super().shapes(d, out), **({"W_skip": (d, out)} if self.skip else {})}

    def start(self, d: int, out: int, generator: torch.Generator) -> Tensors:
        """Random directions, no linear path yet."""
        p = super().start(d, out, generator)
        p["encoder"] = unit_rows(torch.randn(self.width, d, generator=generator))
        return {**p, "W_skip": torch.zeros(d, out)} if self.skip else p

    def learn(self, p: Tensors, x: Tensor, y: Tensor, moment: Moment) -> Learned:
        """As TopK, with another target than the rows."""
        if moment.step == 0:
            written = unit_rows(p["encoder"] @ moment.total(x.T @ y))
            known = torch.linalg.vector_norm(written, dim=1) > 0.5
            p["decoder"][known] = written[known]
        return super().learn(p, x, y, moment)

    def decode(self, t: Tensors, codes: Codes) -> Tensor:
        """Rows from codes; with a skip they need the rows that were read, too."""
        if self.skip:
            raise DictionaryError("this Transcoder has a linear path around its features: codes alone do not give rows; use reconstruct(X)")
        return super().decode(t, codes)

    def rebuild(self, t: Tensors, x: Tensor, codes: Codes) -> Tensor:
        """Rows from codes and, with a skip, from the rows that were read."""
        written = super().decode(t, codes)
        return written + x @ t["W_skip"] if self.skip else written

"""The k largest activations of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from inscape.dictionaries.base import Tensors, check_count, check_positive, dictionary_kind
from inscape.dictionaries.codes import Codes, tidy
from inscape.dictionaries.core import Moment, activation_blocks, bias_of
from inscape.dictionaries.selection import top_of_rows
from inscape.dictionaries.sparse import inner
from inscape.dictionaries.trained import Trained


@dictionary_kind("TopK", example=lambda d: {"width": 4 * d, "k": 3}, source="Gao et al. 2024, Scaling and evaluating sparse autoencoders")
@dataclass(frozen=True, repr=False)
class TopK(Trained):
    """Keeps the k largest activations of each row; nothing else holds the codes sparse.

    z = relu(top_k((x − b_dec) W_enc + b_enc)), x̂ = z W_dec + b_dec. Rows with fewer than k positive activations have fewer codes.

    Attributes:
        width: number of features, m.
        k: features active in a row, at most.
        auxiliary: weight of the loss in which dead features reconstruct what the others leave over.
        coarse: lets the training choose in bfloat16, with exact strengths of what is chosen: faster on processors with bfloat16 products,
            and near ties may fall the other way.

    Example:
        >>> ix.dictionaries.TopK(width=8192, k=32)
        TopK(width=8192)
    """

    haste: ClassVar[float] = 1 / 3  # a higher rate leaves a fifth of the features dead where others only gain

    k: int = 32
    auxiliary: float = 1 / 32
    coarse: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("k", self.k, self.width, self.kind)
        check_positive(self.kind, zero=True, auxiliary=self.auxiliary)

    def revival(self) -> float:
        """Weight of the auxiliary loss."""
        return self.auxiliary

    def select(self, t: Tensors, activations: Tensor) -> Codes:
        """The k largest of each row that are above 0."""
        return tidy(top_of_rows([activations], self.k))

    def choose(self, p: Tensors, x: Tensor, moment: Moment) -> Codes:
        """The k largest of each row."""
        if not self.coarse:
            return top_of_rows(activation_blocks(p, x, self.centers), self.k)
        bias = bias_of(p, self.centers)
        narrow = {"encoder": p["encoder"].bfloat16(), "b_enc": bias.bfloat16()}
        found = top_of_rows(activation_blocks(narrow, x.bfloat16(), False), self.k)
        values = inner(found, x, p["encoder"]).add_(bias[found.indices]).clamp_(min=0)
        return Codes(found.indices, values, found.offsets, found.width)

"""The classic sparse autoencoder: every positive activation is a code, and their sum costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from inscape.dictionaries.base import Tensors, check_positive, dictionary_kind
from inscape.dictionaries.codes import Codes, tidy
from inscape.dictionaries.core import Learned, Moment, activation_blocks, autoencode
from inscape.dictionaries.selection import above
from inscape.dictionaries.trained import Trained, begin_sparse


@dictionary_kind(
    "ReLU", example=lambda d: {"width": 4 * d, "l1": 2.0}, source="Bricken et al. 2023, Towards monosemanticity; Conerly et al. 2024"
)
@dataclass(frozen=True, repr=False)
class ReLU(Trained):
    """All positive activations, with an L1 penalty that keeps them few and, as a side effect, too small.

    z = relu((x − b_dec) W_enc + b_enc); loss ‖x − x̂‖² + l1 Σ z_i ‖W_dec_i‖ for rows scaled to E‖x‖² = d. The penalty rises over the first
    5 % of the steps, and b_enc starts where a 64th of the features is active: from half of them, as with b_enc = 0, a short training finds
    no features. Dead features start again from rows that are reconstructed badly.

    Attributes:
        width: number of features, m.
        l1: weight of the penalty; a higher one gives fewer active features.

    Example:
        >>> ix.dictionaries.ReLU(width=8192, l1=5)
        ReLU(width=8192, l1=5)
    """

    l1: float = 1.0
    replants: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.kind, zero=True, l1=self.l1)

    def select(self, t: Tensors, activations: Tensor) -> Codes:
        """All activations above 0."""
        return tidy(above([activations], 0.0))

    def choose(self, p: Tensors, x: Tensor, moment: Moment) -> Codes:
        """All activations above 0."""
        return above(activation_blocks(p, x, self.centers), 0.0)

    def learn(self, p: Tensors, x: Tensor, y: Tensor, moment: Moment) -> Learned:
        """Squared error and L1; decoder rows have length 1."""
        begin_sparse(p, x, moment, centers=self.centers)
        price = self.l1 * min(1.0, moment.progress / 0.05) / (moment.batch * y.shape[1])
        learned, _ = autoencode(p, x, y, self.choose(p, x, moment), moment, centers=self.centers, penalty=price)
        learned.extra = price * learned.codes.values.sum()
        return learned

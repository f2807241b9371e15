"""A threshold of its own for each feature, trained through the jump."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inscape.dictionaries.base import Tensors, check_count, check_positive, dictionary_kind
from inscape.dictionaries.codes import Codes, tidy
from inscape.dictionaries.core import Learned, Moment, activation_blocks, autoencode, revive
from inscape.dictionaries.selection import above, largest
from inscape.dictionaries.sparse import inner, sum_by_feature
from inscape.dictionaries.trained import Trained, auxiliary_count

# Share of the steps in which all features have one threshold.
_SHARED = 0.3


@dictionary_kind(
    "JumpReLU", example=lambda d: {"width": 4 * d, "l0": 3}, source="Rajamanoharan et al. 2024, Jumping ahead: JumpReLU sparse autoencoders"
)
@dataclass(frozen=True, repr=False)
class JumpReLU(Trained):
    """Activations above a threshold that each feature learns: z = a · [a > θ], with a target for how many are active.

    Loss: squared error + penalty · (L0 / l0 − 1)². The step at θ has no gradient; as in the paper a rectangle of width `bandwidth` around
    it stands in: ∂z/∂θ = −θ / bandwidth and ∂L0/∂θ = −1 / bandwidth for activations inside. For the first 30 % of the steps all features
    share one threshold, under which each batch has l0 active features a row: while activations still grow, thresholds of their own are too
    slow.

    Attributes:
        width: number of features, m.
        l0: features active in a row, on average; the penalty holds it near.
        penalty: weight of the distance from that target.
        bandwidth: width of the rectangle, for rows scaled to mean square 1.
        auxiliary: weight of the loss in which dead features reconstruct what the others leave over, whatever their threshold.

    Example:
        >>> ix.dictionaries.JumpReLU(width=8192, l0=32)
        JumpReLU(width=8192)
    """

    l0: int = 32
    penalty: float = 1.0
    bandwidth: float = 0.4
    auxiliary: float = 1 / 32
    in_code_units: ClassVar[tuple[str, ...]] = ("b_enc", "threshold")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("l0", self.l0, self.width, self.kind)
        check_positive(self.kind, penalty=self.penalty, bandwidth=self.bandwidth)
        check_positive(self.kind, zero=True, auxiliary=self.auxiliary)

    def shapes(self, d: int, out: int) -> dict[str, tuple[int, ...]]:
        """A threshold for each feature beside the matrices."""
        return {**super().shapes(d, out), "threshold": (self.width,)}

    def select(self, t: Tensors, activations: Tensor) -> Codes:
        """All activations above their threshold."""
        return tidy(above([activations], t["threshold"]))

    def start(self, d: int, out: int, generator: torch.Generator) -> Tensors:
        """The log of the thresholds beside the matrices."""
        return {**super().start(d, out, generator), "log_threshold": torch.zeros(self.width)}

    def learn(self, p: Tensors, x: Tensor, y: Tensor, moment: Moment) -> Learned:
        """Squared error, distance from the target, and gradients through the rectangle."""
        shared = moment.progress < _SHARED
        if shared:
            least = largest(lambda: activation_blocks(p, x, self.centers), self.l0, len(x), moment.kept)[1]
            mean = float(moment.total(torch.tensor(least)) / moment.total(torch.ones(())))
            p["log_threshold"].fill_(math.log(max(1e-3, mean)))
        threshold = p["log_threshold"].exp()
        near = above(activation_blocks(p, x, self.centers), threshold - self.bandwidth / 2)
        own = threshold[near.indices]
        active = near.values > own
        codes = Codes(near.indices, near.values * active, near.offsets, near.width)
        learned, error = autoencode(p, x, y, codes, moment, centers=self.centers)
        size = moment.batch * y.shape[1]
        l0 = moment.total(active.sum().to(x.dtype)) / moment.batch
        miss = l0 / self.l0 - 1
        window = (near.values - own < self.bandwidth / 2).to(x.dtype)
        by_code = inner(codes, error * (2 / size), p["decoder"])
        by_count = 2 * self.penalty * miss / self.l0 / moment.batch
        slope = -(own * by_code + by_count) / self.bandwidth * window
        learned.gradients["log_threshold"] = torch.zeros_like(threshold) if shared else sum_by_feature(codes, slope) * threshold
        learned.extra = self.penalty * miss.square() * (len(x) / moment.batch)
        revive(p, x, error, moment, learned, k=auxiliary_count(y.shape[1]), weight=self.auxiliary, centers=self.centers)
        return learned

    def extras(self, p: Tensors) -> Tensors:
        """The thresholds themselves."""
        return {"threshold": p["log_threshold"].exp()}

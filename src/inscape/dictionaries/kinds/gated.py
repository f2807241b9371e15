"""A gate decides which features are active, and the same weights with another scale how strongly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inscape.dictionaries.base import Tensors, check_positive, dictionary_kind
from inscape.dictionaries.codes import Codes, tidy
from inscape.dictionaries.core import Learned, Moment, activation_blocks, encoder_gradients
from inscape.dictionaries.selection import above
from inscape.dictionaries.sparse import decode, gather_by_feature, inner, sum_by_feature
from inscape.dictionaries.trained import Trained, begin_sparse


@dictionary_kind(
    "Gated",
    example=lambda d: {"width": 4 * d, "l1": 2.0},
    source="Rajamanoharan et al. 2024, Improving dictionary learning with gated sparse autoencoders",
)
@dataclass(frozen=True, repr=False)
class Gated(Trained):
    """Separates whether a feature is active from how strongly, so that the L1 penalty does not shrink it.

    With π = (x − b_dec) W_enc + b_enc: z = [π > 0] · relu(e^{r_mag} (π − b_enc) + b_mag). Loss: ‖x − x̂(z)‖² + l1 Σ relu(π) +
    ‖x − x̂(relu π)‖², where the last term trains the encoder only. Rows are scaled to E‖x‖² = d; the penalty rises over the first 5 % of the
    steps, and b_enc starts where a 64th of the features is active. Dead features start again from rows that are reconstructed badly.

    Attributes:
        width: number of features, m.
        l1: weight of the penalty on the gate; a higher one gives fewer active features.

    Example:
        >>> ix.dictionaries.Gated(width=8192, l1=3)
        Gated(width=8192, l1=3)
    """

    l1: float = 2.0
    replants: ClassVar[bool] = True
    in_code_units: ClassVar[tuple[str, ...]] = ("b_enc", "b_mag")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.kind, zero=True, l1=self.l1)

    def shapes(self, d: int, out: int) -> dict[str, tuple[int, ...]]:
        """Scale and offset of the strengths beside the matrices."""
        return {**super().shapes(d, out), "r_mag": (self.width,), "b_mag": (self.width,)}

    def select(self, t: Tensors, activations: Tensor) -> Codes:
        """Strengths where the gate is open."""
        gate = above([activations], 0.0)
        return tidy(Codes(gate.indices, _strengths(gate, t["b_enc"], t["r_mag"], t["b_mag"])[0], gate.offsets, gate.width))

    def start(self, d: int, out: int, generator: torch.Generator) -> Tensors:
        """Gate and strength begin equal."""
        return {**super().start(d, out, generator), "r_mag": torch.zeros(self.width), "b_mag": torch.zeros(self.width)}

    def learn(self, p: Tensors, x: Tensor, y: Tensor, moment: Moment) -> Learned:
        """Both reconstructions, the penalty on the gate, and their gradients."""
        begin_sparse(p, x, moment, centers=self.centers)
        gate = above(activation_blocks(p, x, self.centers), 0.0)
        strength, input_, scale = _strengths(gate, p["b_enc"], p["r_mag"], p["b_mag"])
        codes = Codes(gate.indices, strength, gate.offsets, gate.width)
        codes.__dict__["rows"], codes.__dict__["by_feature"] = gate.rows, gate.by_feature  # the same entries: computed once
        size = moment.batch * y.shape[1]
        error = decode(codes, p["decoder"]).add_(p["b_dec"]).sub_(y)
        frozen = decode(gate, p["decoder"]).add_(p["b_dec"]).sub_(y)
        price = self.l1 * min(1.0, moment.progress / 0.05) / size
        slope = error * (2 / size)
        by_strength = inner(codes, slope, p["decoder"]) * (strength > 0)
        by_gate = inner(gate, frozen * (2 / size), p["decoder"]) + price
        gradients = encoder_gradients(p, x, codes, by_strength * scale + by_gate, centers=self.centers)
        gradients["b_enc"] = sum_by_feature(gate, by_gate)
        gradients["b_mag"] = sum_by_feature(gate, by_strength)
        gradients["r_mag"] = sum_by_feature(gate, by_strength * scale * input_)
        gradients["decoder"] = gather_by_feature(codes, strength, slope)
        gradients["b_dec"] = gradients["b_dec"] + slope.sum(0)
        extra = frozen.square().sum() / size + price * gate.values.sum()
        return Learned(error.square().sum() / size, gradients, codes, extra, -error)

    def replant(self, p: Tensors, dead: Tensor, rows: Tensor) -> None:
        """New directions, with gate and strength equal."""
        super().replant(p, dead, rows)
        p["r_mag"][dead] = 0.0
        p["b_mag"][dead] = 0.0


def _strengths(gate: Codes, b_enc: Tensor, r_mag: Tensor, b_mag: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """At each open gate: the strength, what it is computed from, and its scale."""
    scale = r_mag.exp()[gate.indices]
    given = gate.values - b_enc[gate.indices]
    return (scale * given + b_mag[gate.indices]).clamp(min=0), given, scale

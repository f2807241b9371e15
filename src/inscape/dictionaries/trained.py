"""Kinds that are trained by gradients: how they start, step, revive and end."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inscape.dictionaries.base import Recipe, Tensors, unit_rows
from inscape.dictionaries.codes import Codes
from inscape.dictionaries.core import Learned, Moment, activation_blocks, autoencode, revive
from inscape.dictionaries.selection import largest
from inscape.errors import DictionaryError


@dataclass(frozen=True)
class Trained(Recipe):
    """Base of kinds with an encoder, a decoder with unit rows and two offsets, trained by gradients.

    During training tensors are called encoder [m, d], decoder [m, out], b_enc, b_dec and what a kind adds; rows are normalized.
    """

    replants: ClassVar[bool] = False  # whether dead features start again from rows that are reconstructed badly
    momenta: ClassVar[tuple[float, float]] = (0.9, 0.999)  # of Adam
    haste: ClassVar[float] = 0.4  # how the default rate grows for short runs: the power of how much shorter they are
    unit: ClassVar[bool] = False  # whether directions of length 1 are part of the definition
    in_code_units: ClassVar[tuple[str, ...]] = ("b_enc",)  # tensors that grow with the codes when rows grow

    def start(self, d: int, out: int, generator: torch.Generator) -> Tensors:
        """First values: random unit directions, the encoder equal to the decoder, offsets 0."""
        decoder = unit_rows(torch.randn(self.width, out, generator=generator))
        encoder = decoder.clone() if d == out else unit_rows(torch.randn(self.width, d, generator=generator))
        return {"encoder": encoder, "decoder": decoder, "b_enc": torch.zeros(self.width), "b_dec": torch.zeros(out)}

    def choose(self, p: Tensors, x: Tensor, moment: Moment) -> Codes:
        """The entries that this step trains."""
        raise DictionaryError(f"{type(self).__name__} does not say which entries it trains; define choose(p, x, moment)")

    def revival(self) -> float:
        """Weight of the loss in which dead features reconstruct what the others leave over."""
        return 0.0

    def learn(self, p: Tensors, x: Tensor, y: Tensor, moment: Moment) -> Learned:
        """Loss and gradients of one batch."""
        learned, error = autoencode(p, x, y, self.choose(p, x, moment), moment, centers=self.centers)
        revive(p, x, error, moment, learned, k=auxiliary_count(y.shape[1]), weight=self.revival(), centers=self.centers)
        return learned

    def replant(self, p: Tensors, dead: Tensor, rows: Tensor) -> None:
        """Starts dead features again, in place, from as many leftovers `rows` [dead, d]."""
        directions = unit_rows(rows)
        alive = torch.ones(self.width, dtype=torch.bool, device=rows.device)
        alive[dead] = False
        size = torch.linalg.vector_norm(p["encoder"][alive], dim=1).mean() if bool(alive.any()) else 1.0
        p["decoder"][dead] = directions
        p["encoder"][dead] = 0.2 * size * directions
        p["b_enc"][dead] = 0.0

    def finish(self, p: Tensors, batches: Iterable[Tensor]) -> Tensors:
        """Last values, which may look once more at normalized rows (for a threshold, say)."""
        return p

    def extras(self, p: Tensors) -> Tensors:
        """What a fitted dictionary keeps beside the four matrices, by its name there."""
        return {name: value for name, value in p.items() if name not in ("encoder", "decoder", "b_enc", "b_dec")}


def begin_sparse(p: Tensors, x: Tensor, moment: Moment, *, centers: bool) -> None:
    """Before the first step: offsets under which few features are active, where a penalty would have to silence half of them first."""
    if moment.step:
        return
    m = p["encoder"].shape[0]
    active, processes = max(1, m // 64), round(float(moment.total(torch.ones(()))))
    codes, least = largest(lambda: activation_blocks(p, x, centers), min(m, active * processes), len(x), {})
    p["b_enc"].sub_(least if processes == 1 else _least_of_all(codes.values, active * moment.batch, moment))


def _least_of_all(values: Tensor, wanted: int, moment: Moment) -> float:
    """The smallest of the `wanted` largest values of all processes, by bisection: they only exchange counts."""
    low, high = 0.0, float(moment.total(values.max() if len(values) else values.new_zeros(())))
    for _ in range(50):
        middle = (low + high) / 2
        enough = float(moment.total((values >= middle).sum().double())) >= wanted
        low, high = (middle, high) if enough else (low, middle)
    return low


def auxiliary_count(d: int) -> int:
    """How many dead features take part for one row: the power of two nearest to half the units."""
    return 2 ** max(0, round(math.log2(max(1, d) / 2)))

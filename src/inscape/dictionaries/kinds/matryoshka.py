"""Nested dictionaries: the first features must do alone what they can."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inscape.dictionaries.base import Tensors, dictionary_kind
from inscape.dictionaries.codes import Codes, offsets_of
from inscape.dictionaries.core import Learned, Moment, encoder_gradients, revive
from inscape.dictionaries.kinds.batch_top_k import BatchTopK
from inscape.dictionaries.sparse import decode, gather_by_feature, inner
from inscape.dictionaries.trained import auxiliary_count
from inscape.errors import DictionaryError


@dictionary_kind(
    "Matryoshka",
    example=lambda d: {"width": 4 * d, "k": 3, "prefixes": (d, 2 * d, 4 * d)},
    source="Bussmann et al. 2025, Learning multi-level features with Matryoshka sparse autoencoders",
)
@dataclass(frozen=True, repr=False)
class Matryoshka(BatchTopK):
    """A BatchTopK dictionary whose first m₁, m₂, … features each reconstruct the rows as well as they can.

    Loss: the mean over prefixes of ‖x − (z_{:m_j} W_dec_{:m_j} + b_dec)‖². General features come first, and a narrower dictionary is
    cut off the front. One pass over the codes serves all prefixes: reconstructions are running sums over blocks of features, gradients the
    running sums of the prefixes' errors from the other end.

    Attributes:
        width: number of features, m.
        k: features active in a row on average.
        auxiliary: weight of the loss in which dead features reconstruct what the others leave over.
        prefixes: ascending sizes that end in the width. Default: width / 16, / 8, / 4, / 2 and the width.

    Example:
        >>> ix.dictionaries.Matryoshka(width=8192, k=32, prefixes=(512, 2048, 8192))
        Matryoshka(width=8192, prefixes=(512, 2048, 8192))
    """

    prefixes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = tuple(self.prefixes) or tuple(sorted({max(1, self.width // part) for part in (16, 8, 4, 2, 1)}))
        if list(sizes) != sorted(set(sizes)) or sizes[-1] != self.width or sizes[0] < 1:
            raise DictionaryError(f"Matryoshka: prefixes={sizes} must rise and end in the width, {self.width}")
        object.__setattr__(self, "prefixes", sizes)

    def learn(self, p: Tensors, x: Tensor, y: Tensor, moment: Moment) -> Learned:
        """Loss of all prefixes and its gradients."""
        codes = self.choose(p, x, moment)
        blocks, order = self._by_block(codes)
        count, b, out = len(self.prefixes), len(x), y.shape[1]
        size = moment.batch * out
        error = decode(blocks, p["decoder"]).view(count, b, out).cumsum(0).add_(p["b_dec"]).sub_(y)
        slope = error * (2 / (size * count))
        # A feature of block j stands in every prefix from j on.
        behind = slope.flip(0).cumsum(0).flip(0).view(count * b, out)
        by_entry = torch.empty_like(codes.values)
        by_entry[order] = inner(blocks, behind, p["decoder"])
        gradients = encoder_gradients(p, x, codes, by_entry * (codes.values > 0), centers=self.centers)
        gradients["decoder"] = gather_by_feature(blocks, blocks.values, behind)
        gradients["b_dec"] = gradients["b_dec"] + slope.sum((0, 1))
        last = error[-1].square().sum() / size
        learned = Learned(last, gradients, codes, error.square().sum() / (size * count) - last, -error[-1])
        revive(p, x, error[-1], moment, learned, k=auxiliary_count(out), weight=self.auxiliary, centers=self.centers)
        return learned

    def _by_block(self, codes: Codes) -> tuple[Codes, Tensor]:
        """Codes with a row for each block and row, and the order in which their entries come."""
        block = torch.bucketize(codes.indices, torch.tensor(self.prefixes), right=True)
        bags = block * codes.n + codes.rows
        order = torch.argsort(bags, stable=True)
        counts = torch.bincount(bags, minlength=codes.n * len(self.prefixes))
        return Codes(codes.indices[order], codes.values[order], offsets_of(counts), codes.width), order

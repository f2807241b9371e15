"""The largest activations of a whole batch; a threshold at inference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inscape.dictionaries.base import Tensors, check_count, check_positive, dictionary_kind
from inscape.dictionaries.codes import Codes, tidy
from inscape.dictionaries.core import Moment, activation_blocks
from inscape.dictionaries.selection import above, largest
from inscape.dictionaries.trained import Trained


@dictionary_kind("BatchTopK", example=lambda d: {"width": 4 * d, "k": 3}, source="Bussmann et al. 2024, BatchTopK sparse autoencoders")
@dataclass(frozen=True, repr=False)
class BatchTopK(Trained):
    """Keeps the k·b largest activations of a batch of b rows, so that rows share: some get more codes, some fewer.

    A fitted dictionary uses one threshold instead, set at the end of the training so that rows have k codes on average; what a row's codes
    are then does not depend on other rows. Several processes choose within their own part of the batch.

    Attributes:
        width: number of features, m.
        k: features active in a row on average.
        auxiliary: weight of the loss in which dead features reconstruct what the others leave over.

    Example:
        >>> ix.dictionaries.BatchTopK(width=8192, k=32)
        BatchTopK(width=8192)
    """

    k: int = 32
    auxiliary: float = 1 / 32
    in_code_units: ClassVar[tuple[str, ...]] = ("b_enc", "threshold")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("k", self.k, self.width, self.kind)
        check_positive(self.kind, zero=True, auxiliary=self.auxiliary)

    def revival(self) -> float:
        """Weight of the auxiliary loss."""
        return self.auxiliary

    def shapes(self, d: int, out: int) -> dict[str, tuple[int, ...]]:
        """A threshold beside the matrices."""
        return {**super().shapes(d, out), "threshold": ()}

    def select(self, t: Tensors, activations: Tensor) -> Codes:
        """All activations above the threshold."""
        return tidy(above([activations], t["threshold"]))

    def choose(self, p: Tensors, x: Tensor, moment: Moment) -> Codes:
        """The k·b largest; the last step's threshold says about where they begin."""
        return largest(lambda: activation_blocks(p, x, self.centers), self.k, len(x), moment.kept)[0]

    def finish(self, p: Tensors, batches: Iterable[Tensor]) -> Tensors:
        """Sets the threshold: the (k·n)-th largest activation of the n rows that are given."""
        floor, n, parts = 0.0, 0, torch.zeros(0)
        for x in batches:
            fresh = above(activation_blocks(p, x, self.centers), floor).values
            n, parts = n + len(x), torch.cat([parts, fresh])
            if len(parts) > 4 * self.k * n:  # far more than can matter, whatever comes: rows are in random order
                parts = parts.topk(3 * self.k * n, sorted=False).values
                floor = 0.5 * float(parts.min())
        total = self.k * n
        threshold = parts.topk(total + 1, sorted=True).values[-1] if len(parts) > total else torch.zeros(())
        return {**p, "threshold": threshold.reshape(())}

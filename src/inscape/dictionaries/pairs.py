"""Kinds that read one site and write another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from inscape.dictionaries.base import Tensors, unit_rows
from inscape.dictionaries.codes import Codes
from inscape.dictionaries.core import Learned, Moment, activation_blocks
from inscape.dictionaries.selection import largest
from inscape.dictionaries.sparse import decode
from inscape.dictionaries.trained import Trained
from inscape.errors import DictionaryError


@dataclass(frozen=True)
class Paired(Trained):
    """What transcoders share, whatever chooses their codes: put it before the kind that does, as in `class Transcoder(Paired, TopK)`.

    The directions that are written start as what a linear map of the first batch makes of those that are read, and the encoder as short as
    suits them.
    """

    skip: bool = False
    sites: ClassVar[str] = "pair"
    centers: ClassVar[bool] = False

    @property
    def active(self) -> int:
        """How many features a row has, about."""
        raise DictionaryError(f"{type(self).__name__} does not say how many features a row has; define active")

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
        """As the kind that chooses the codes, with another target than the rows."""
        if moment.step == 0:
            written = unit_rows(p["encoder"] @ moment.total(x.T @ y))
            known = torch.linalg.vector_norm(written, dim=1) > 0.5
            p["decoder"][known] = written[known]
            self._shorten(p, x, y, moment)
        return super().learn(p, x, y, moment)

    def _shorten(self, p: Tensors, x: Tensor, y: Tensor, moment: Moment) -> None:
        """Multiplies the encoder by the factor that suits the first batch best: directions alone may write far too much."""
        codes = largest(lambda: activation_blocks(p, x, self.centers), self.active, len(x), {})[0]
        guess = decode(codes, p["decoder"])
        fits, length = moment.total(torch.stack([(guess * y).sum(), guess.square().sum()])).tolist()
        p["encoder"].mul_(min(1.0, max(0.02, fits / length)) if length > 0 else 1.0)

    def decode(self, t: Tensors, codes: Codes) -> Tensor:
        """Rows from codes; with a skip they need the rows that were read, too."""
        if self.skip:
            raise DictionaryError(
                f"this {self.kind} has a linear path around its features: codes alone do not give rows; use reconstruct(X)"
            )
        return super().decode(t, codes)

    def rebuild(self, t: Tensors, x: Tensor, codes: Codes) -> Tensor:
        """Rows from codes and, with a skip, from the rows that were read."""
        written = super().decode(t, codes)
        return written + x @ t["W_skip"] if self.skip else written

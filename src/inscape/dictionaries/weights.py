"""From the conventions of other libraries to one: every scale, offset and length is folded into the matrices, exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inscape.dictionaries.base import Tensors

# Columns of W_enc that are brought to fp64 at one time.
_BLOCK = 4096


@dataclass(frozen=True)
class Weights:
    """Matrices with a plain meaning: a = x W_enc + b_enc, x̂ = z W_dec + b_dec (+ x W_skip).

    Libraries that read x − b_dec are brought here by `reading_less`, and `centered` takes what is here to kinds that read x − b_dec.

    Attributes:
        W_enc: [d, m].
        W_dec: [m, out].
        b_enc: [m].
        b_dec: [out].
        threshold: [m], what an activation must exceed.
        r_mag: [m], of gated kinds: log of the strengths' scale.
        b_mag: [m], of gated kinds: z = [a > 0] · relu(e^r_mag x W_enc + b_mag).
        W_skip: [d, out].
    """

    W_enc: Tensor
    W_dec: Tensor
    b_enc: Tensor
    b_dec: Tensor
    threshold: Tensor | None = None
    r_mag: Tensor | None = None
    b_mag: Tensor | None = None
    W_skip: Tensor | None = None

    @property
    def m(self) -> int:
        """Number of features."""
        return self.W_enc.shape[1]

    def reading_less(self, offset: Tensor) -> Weights:
        """For an encoder that is given x − offset."""
        return self._shifted(-1.0, offset)

    def centered(self) -> Weights:
        """For kinds that read x − b_dec: the same activations."""
        return self._shifted(1.0, self.b_dec)

    def of_scaled_rows(self, inward: float, outward: float | None = None) -> Weights:
        """For rows that were multiplied by `inward` before they were read, and by `outward` (the same) where they were written."""
        outward = inward if outward is None else outward
        skip = None if self.W_skip is None else self.W_skip * (inward / outward)
        return replace(self, W_enc=self.W_enc * inward, W_dec=self.W_dec / outward, b_dec=self.b_dec / outward, W_skip=skip)

    def with_unit_directions(self) -> Weights:
        """Directions of length 1, codes longer by what they lost."""
        lengths = torch.linalg.vector_norm(self.W_dec.double(), dim=1).clamp(min=1e-8).to(self.W_dec.dtype)
        return replace(self, W_dec=self.W_dec / lengths[:, None])._grown(lengths)

    def with_codes_in(self, unit: float) -> Weights:
        """The same reconstructions from codes that are `unit` times as large."""
        grown = self._grown(torch.full_like(self.b_enc, unit))
        return replace(grown, W_dec=self.W_dec / unit)

    def with_codes_times(self, factors: Tensor) -> Weights:
        """For a decoder that multiplies codes by factors [m] of their own."""
        return replace(self, W_dec=self.W_dec * factors[:, None])

    def tensors(self, **names: str) -> Tensors:
        """The tensors in fp32, as a kind calls them: `tensors(threshold="threshold")` adds one to the four matrices."""
        named = {"W_enc": "W_enc", "W_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec", **names}
        found: Tensors = {}
        for own, name in named.items():
            value = getattr(self, own)
            if value is not None:
                found[name] = value.detach().to(torch.float32)
        return found

    def _grown(self, factors: Tensor) -> Weights:
        def times(value: Tensor | None) -> Tensor | None:
            return None if value is None else value * factors

        return replace(
            self,
            W_enc=self.W_enc * factors,
            b_enc=self.b_enc * factors,
            threshold=times(self.threshold),
            b_mag=times(self.b_mag),
        )

    def _shifted(self, sign: float, offset: Tensor) -> Weights:
        """Activations of x + sign · offset, in fp64 where it matters."""
        parts = [offset.double() @ block.double() for block in self.W_enc.split(_BLOCK, 1)]
        shift = sign * torch.cat(parts)
        b_mag = self.b_mag
        if b_mag is not None and self.r_mag is not None:
            b_mag = b_mag.double() + self.r_mag.double().exp() * shift
        return replace(self, b_enc=self.b_enc.double() + shift, b_mag=b_mag)


def rows_of(per_row: str, eps: float = 1e-5) -> Callable[[Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """How a dictionary that normalizes each row for itself reads rows [n, d], and how it gives reconstructions back.

    "layer_norm" takes the mean over units away and divides by their standard deviation (with n − 1) plus 1e-5; reconstructions are
    multiplied by the standard deviation alone, as in the library that began it. "length" gives rows the length √d. Neither is linear,
    so neither can be folded into matrices.
    """

    def layer_norm(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        mean = x.mean(1, keepdim=True)
        spread = (x - mean).std(1, keepdim=True)
        return (x - mean) / (spread + eps), lambda y: y * spread + mean

    def length(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        factor = x.shape[1] ** 0.5 / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        return x * factor, lambda y: y / factor

    return {"layer_norm": layer_norm, "length": length}[per_row]

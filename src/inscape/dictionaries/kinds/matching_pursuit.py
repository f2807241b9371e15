"""Features chosen one after the other, each from what the former ones leave over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inscape.dictionaries.base import Tensors, check_count, check_positive, dictionary_kind, unit_rows
from inscape.dictionaries.codes import Codes, offsets_of
from inscape.dictionaries.core import Learned, Moment
from inscape.dictionaries.trained import Trained
from inscape.errors import DictionaryError

# Rows whose inner products with all directions are kept up to date at one time: they should stay in the cache.
_ROWS = 128
# Most bytes that the inner products of all pairs of directions may take; beyond it they come from the leftovers anew.
_GRAM_BYTES = 2**30


@dictionary_kind(
    "MatchingPursuit",
    example=lambda d: {"width": 4 * d, "k": 4},
    source="Costa et al. 2025, From flat to hierarchical: MP-SAE; Mallat and Zhang 1993",
)
@dataclass(frozen=True, repr=False)
class MatchingPursuit(Trained):
    """In each of k steps the direction that fits the leftover best is taken, and what it explains is subtracted.

    r₀ = x − b_dec; j = argmax ⟨r, w_i⟩, c = max(⟨r, w_j⟩, 0), z_j += c, r −= c w_j. Encoder and decoder are the same unit directions, so a
    leftover is orthogonal to the direction taken last and its length never grows. A row ends early when no direction fits it any more, or
    when its leftover is below `tolerance`: `dictionary.using(k=64, tolerance=0.05)` encodes with other limits than those of the training.

    Encoding keeps the inner products p = W r up to date by p −= c · (W Wᵀ)_j, m multiplications a step in place of d·m; exact. Training
    goes back through the steps, and makes leftovers again on the way in place of storing them.

    Attributes:
        width: number of directions, m.
        k: steps at most, and so active features at most.
        tolerance: share of ‖x − b_dec‖² at which a row ends; 0 takes all k steps.

    Example:
        >>> ix.dictionaries.MatchingPursuit(width=8192, k=16)
        MatchingPursuit(width=8192, k=16)
    """

    k: int = 32
    tolerance: float = 0.0
    replants: ClassVar[bool] = True
    unit: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("k", self.k, self.width, self.kind)
        check_positive(self.kind, zero=True, tolerance=self.tolerance)

    def shapes(self, d: int, out: int) -> dict[str, tuple[int, ...]]:
        """One matrix and one offset."""
        return {"W_dec": (self.width, out), "b_dec": (out,)}

    def check(self, t: Tensors) -> None:
        """Directions must have length 1."""
        super().check(t)
        lengths = torch.linalg.vector_norm(t["W_dec"].float(), dim=1)
        off = float((lengths - 1).abs().max())
        if off > 1e-2:
            raise DictionaryError(
                f"MatchingPursuit: rows of W_dec must have length 1, one has {float(lengths[(lengths - 1).abs().argmax()]):.3g}"
            )

    def implied(self, name: str, t: Tensors) -> Tensor | None:
        """What activates a feature is the direction that it writes; there is no other offset."""
        return {"W_enc": t["W_dec"].T, "b_enc": t["W_dec"].new_zeros(self.width)}.get(name)

    def prepare(self, t: Tensors, n: int) -> Tensors:
        """The inner products of all pairs of directions, where they fit into memory and pay."""
        pays = n * self.k > self.width and self.width**2 * t["W_dec"].element_size() <= _GRAM_BYTES
        return {**t, "gram": t["W_dec"] @ t["W_dec"].T} if pays else t

    def encode(self, t: Tensors, x: Tensor) -> Codes:
        """Codes of rows [n, d]."""
        parts = [self._pursue(t["W_dec"], t.get("gram"), part - t["b_dec"], self.tolerance) for part in x.split(_ROWS)]
        return Codes.cat([_added_up(*part, self.width) for part in parts]) if parts else Codes.of(x.new_zeros(0, self.width))

    def start(self, d: int, out: int, generator: torch.Generator) -> Tensors:
        """Random unit directions."""
        return {"decoder": unit_rows(torch.randn(self.width, out, generator=generator)), "b_dec": torch.zeros(out)}

    def learn(self, p: Tensors, x: Tensor, y: Tensor, moment: Moment) -> Learned:
        """Squared error of what is left after k steps, and its gradient back through them."""
        W, size = p["decoder"], moment.batch * y.shape[1]
        gram = W @ W.T if len(x) * self.k > 2 * self.width and self.width**2 * W.element_size() <= _GRAM_BYTES else None
        found = [self._pursue(W, gram, part, 0.0) for part in (x - p["b_dec"]).split(_ROWS)]
        chosen, strength = torch.cat([part[0] for part in found]), torch.cat([part[1] for part in found])
        left = x - p["b_dec"]
        for t in range(self.k):
            left = left.addcmul(W[chosen[:, t]], strength[:, t, None], value=-1)
        error, slope, after = -left, left * (2 / size), left
        by_direction = torch.zeros_like(W)
        for t in reversed(range(self.k)):
            w, c = W[chosen[:, t]], strength[:, t, None]
            before = after.addcmul(w, c)
            by_strength = -torch.linalg.vecdot(slope, w)[:, None] * (c > 0)
            by_direction.index_add_(0, chosen[:, t], before * by_strength - slope * c)
            slope, after = slope.addcmul(w, by_strength), before
        codes = _added_up(chosen, strength, self.width)
        return Learned(error.square().sum() / size, {"decoder": by_direction, "b_dec": -slope.sum(0)}, codes, error.new_zeros(()), left)

    def replant(self, p: Tensors, dead: Tensor, rows: Tensor) -> None:
        """New directions."""
        p["decoder"][dead] = unit_rows(rows)

    def extras(self, p: Tensors) -> Tensors:
        """Nothing beside the directions."""
        return {}

    def _pursue(self, W: Tensor, gram: Tensor | None, r: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """The direction and the strength of each step, [n, k]; strength 0 once a row has ended."""
        n = len(r)
        chosen, strength = torch.zeros(n, self.k, dtype=torch.int64, device=r.device), r.new_zeros(n, self.k)
        length = r.square().sum(1)
        enough = tolerance * length
        p, buffer = r @ W.T, None if gram is None else r.new_empty(n, len(W))
        for t in range(self.k):
            c, j = p.max(1)
            c = c.clamp_(min=0) * (length > enough)
            if not bool((c > 0).any()):
                break
            chosen[:, t], strength[:, t] = j, c
            length = length - c.square()
            if gram is None:
                r = r.addcmul(W[j], c[:, None], value=-1)
                torch.mm(r, W.T, out=p)
            elif t + 1 < self.k:
                p.addcmul_(torch.index_select(gram, 0, j, out=buffer), c[:, None], value=-1)
        return chosen, strength


def _added_up(chosen: Tensor, strength: Tensor, width: int) -> Codes:
    """Codes from steps [n, k]: a direction that was taken twice counts once, with both strengths."""
    n = len(chosen)
    keys = (torch.arange(n, device=chosen.device)[:, None] * width + chosen)[strength > 0]
    unique, place = keys.unique(return_inverse=True)
    values = strength.new_zeros(len(unique)).index_add_(0, place, strength[strength > 0])
    rows = torch.div(unique, width, rounding_mode="floor")
    return Codes(unique - rows * width, values, offsets_of(torch.bincount(rows, minlength=n)), width)

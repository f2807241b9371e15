"""`Map`: a fitted map from one space to another."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from inscape.arrays import as_rows, row_blocks
from inscape.errors import MapError
from inscape.results import Result
from inscape.store import View, view_of

Held = tuple[Tensor, Tensor, np.ndarray]


class Map:
    """A map from the rows of one space (a) to those of another (b), fitted by `ix.align`.

    Every method ends in an affine map: ŷ = (x − mean_a) weight + mean_b.

    Attributes:
        method: how it was fitted: "orthogonal", "affine", "ridge", "relative", "permutation".
        tensors: weight [p, q], back [q, p], mean_a [p], mean_b [q], and what the method keeps besides; in fp64.
        info: where it comes from: systems, sites, numbers of rows, options, and what the method found.

    Example:
        >>> fitted = ix.align(X, Y, "orthogonal")
        >>> fitted.transform(X).shape == Y.shape
        True
    """

    def __init__(self, method: str, tensors: Mapping[str, Tensor], info: Mapping[str, Any] | None = None) -> None:
        self.method = method
        self.tensors = {name: torch.as_tensor(value).contiguous() for name, value in tensors.items()}
        self.info: dict[str, Any] = dict(info or {})
        self._held: Held | None = None
        _check(self.tensors)

    @property
    def d_a(self) -> int:
        """Units of the space that it reads."""
        return self.tensors["weight"].shape[0]

    @property
    def d_b(self) -> int:
        """Units of the space that it writes."""
        return self.tensors["weight"].shape[1]

    def transform(self, X: Any) -> Float[Tensor, "n q"]:
        """Rows of a [n, p] as rows of b [n, q], in the dtype of the rows (fp32 at least).

        Raises:
            MapError: X has another number of units.
            DegenerateInputError: X is not [n, d], or holds NaN or infinity.
        """
        return self._apply(X, "a", "weight")

    def inverse(self, Y: Any) -> Float[Tensor, "n p"]:
        """Rows of b [n, q] as rows of a [n, p].

        The transpose for rotations and permutations; for the other methods a map that was fitted from b to a, since the inverse of a
        least-squares map would blow up noise.

        Raises:
            MapError: Y has another number of units.
        """
        return self._apply(Y, "b", "back")

    def relative(self, rows: Any, of: str = "a") -> Float[Tensor, "n anchors"]:
        """Cosines of rows of a (or, with `of="b"`, of b) with the anchors: coordinates that both spaces share.

        Raises:
            MapError: the map was not fitted with method="relative", or `of` is neither "a" nor "b".
        """
        if of not in ("a", "b"):
            raise MapError(f"of={of!r}: rows belong to space 'a' or 'b'")
        if f"anchors_{of}" not in self.tensors:
            raise MapError(f"a map of method {self.method!r} has no anchors; fit one with ix.align(a, b, 'relative')")
        anchors, mean = self.tensors[f"anchors_{of}"], self.tensors[f"mean_{of}"]
        parts: list[Tensor] = []
        for block in self._blocks(rows, of):
            centered = block - mean.to(block)
            parts.append(torch.nn.functional.normalize(centered, dim=1) @ anchors.to(block).T)
        return torch.cat(parts)

    def recentered(self, A: Any, B: Any) -> Map:
        """The same weight about the means of other rows, whose pairing is not used: another modality lies elsewhere in its space.

        Args:
            A: rows of a, [n, p].
            B: rows of b, [m, q]; they need not belong to those of A.

        Example:
            >>> texts = images.recentered(text_a, text_b)       # doctest: +SKIP
        """
        means = {f"mean_{side}": self._mean(rows, side) for rows, side in ((A, "a"), (B, "b"))}
        other = Map(self.method, {**self.tensors, **means}, {**self.info, "recentered": True})
        return other

    def score(
        self, A: Any = None, B: Any = None, *, groups: Any = None, interval: str | int | None = "auto", level: float = 0.95, seed: int = 0
    ) -> Result:
        """How well it maps rows that it was not fitted on, with intervals.

        Args:
            A: rows of a; by default those that were held out.
            B: the rows of b that belong to them.
            groups: rows of one group are dependent: a column of the stimuli, or one label per row or stimulus; default the stimulus.
            interval: "auto" or "jackknife" (delete-group, 32 groups), a number of groups, or None.
            level: coverage of the intervals.
            seed: seed of the groups.

        Returns:
            A `Result` with `map_r2` (1 − Σ‖y − ŷ‖² / Σ‖y − mean_b‖²) and `map_cosine` (mean cosine of y and ŷ about mean_b).

        Raises:
            MapError: no rows were held out, or another number of units.
            StoreMismatchError: the rows do not pair.
        """
        from inscape.maps.scoring import score

        return score(self, A, B, groups=groups, interval=interval, level=level, seed=seed)

    def retrieval(
        self,
        k: int | Sequence[int] = (1, 5, 10),
        A: Any = None,
        B: Any = None,
        *,
        csls: bool = True,
        neighbors: int = 10,
        interval: str | int | None = "auto",
        level: float = 0.95,
        seed: int = 0,
    ) -> Result:
        """How often a mapped row finds its partner among the k nearest rows of b, beside chance.

        Args:
            k: how many nearest rows count.
            A: rows of a; by default those that were held out.
            B: the rows of b that belong to them; all of them are searched.
            csls: take off the mean cosine with the nearest rows of the other side, so that rows near everything do not win
                (cross-domain similarity local scaling); False ranks by plain cosine.
            neighbors: how many nearest rows that mean is over.
            interval: as in `score`.
            level: coverage of the intervals.
            seed: seed of the groups.

        Returns:
            A `Result` with `retrieval` at every k; `null_mean` is chance, k / n. Ties count by the chance that they fall right.

        Raises:
            MapError: no rows were held out, another number of units, or k is below 1.
            StoreMismatchError: the rows do not pair.
        """
        from inscape.maps.scoring import retrieval

        chosen = (k,) if isinstance(k, int) else tuple(k)
        crowd = neighbors if csls else 0
        return retrieval(self, chosen, A, B, csls=crowd, interval=interval, level=level, seed=seed)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes `map.json` and `map.safetensors` into a folder; held-out rows are not kept."""
        from inscape.maps.saving import save

        return save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Map:
        """Reads what `save` wrote.

        Raises:
            MapError: the folder holds no map, or one of a newer format.
            StoreCorruptError: a file of it is missing or damaged.
        """
        from inscape.maps.saving import load

        return load(path)

    def __repr__(self) -> str:
        a, b = self.info.get("a", ""), self.info.get("b", "")
        names = f" {a} → {b}" if a and b else ""
        return f"Map({self.method}{names}: {self.d_a} → {self.d_b} units, fitted on {self.info.get('n', '?')} pairs)"

    # ---- inside --------------------------------------------------------------------------------------------------

    def _apply(self, rows: Any, side: str, name: str) -> Tensor:
        other = "b" if side == "a" else "a"
        weight, off, on = self.tensors[name], self.tensors[f"mean_{side}"], self.tensors[f"mean_{other}"]
        parts = [(block - off.to(block)) @ weight.to(block) + on.to(block) for block in self._blocks(rows, side)]
        return torch.cat(parts)

    def _mean(self, rows: Any, side: str) -> Tensor:
        total, n = torch.zeros_like(self.tensors[f"mean_{side}"]), 0
        for block in self._blocks(rows, side):
            total, n = total + block.double().sum(0), n + len(block)
        return total / n

    def _blocks(self, rows: Any, side: str) -> Any:
        """Rows in fp32 or fp64, some at a time, checked against the width of their side."""
        width = self.d_a if side == "a" else self.d_b
        view = view_of(rows, side)
        if view.d != width:
            name = f"{view.system}/{view.site}"
            raise MapError(f"{name} has shape {view.shape}, but this map's space {side} has {width} units; give rows of that space")
        parts = view.batches() if isinstance(rows, View) else [view.torch()]
        for part in parts:
            checked = as_rows(part, side)
            checked = checked if checked.dtype == torch.float64 else checked.float()
            for block in row_blocks(len(checked), max(self.d_a, self.d_b), 4):
                yield checked[block]


def _check(tensors: Mapping[str, Tensor]) -> None:
    missing = [name for name in ("weight", "back", "mean_a", "mean_b") if name not in tensors]
    if missing:
        raise MapError(f"a map needs weight, back, mean_a and mean_b; {', '.join(missing)} is missing")
    p, q = tensors["weight"].shape
    wanted = {"back": (q, p), "mean_a": (p,), "mean_b": (q,)}
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != shape:
            raise MapError(f"{name} has shape {tuple(tensors[name].shape)}; beside a weight of shape {(p, q)} it must be {shape}")

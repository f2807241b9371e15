"""The queries, keys and values that attention really multiplied in a dry run: the proof of what a projection's columns are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SOFTMAX = ("softmax", "special_softmax")
_PRODUCTS = ("matmul", "__matmul__", "bmm", "baddbmm", "einsum")  # the factors are the last two tensors


@dataclass
class Attended:
    """One run of attention.

    Attributes:
        inside: path of the innermost module that was running.
        at: moment, on the clock of the dry run.
        q: queries `[b, heads, t, d]` or `[b · heads, t, d]`, as they met the keys; `None` where they could not be seen.
        k: keys, likewise; a key head may serve several query heads.
        v: values, likewise.
        z: the values' weighted sums, likewise.
    """

    inside: str
    at: int
    q: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None
    z: Tensor | None = None


class Operands(TorchFunctionMode):
    """Collects every attention that runs while it is pushed, and changes nothing.

    `scaled_dot_product_attention` names its operands. Elsewhere attention is a softmax over three or more axes: the product of its
    size before it is that of queries and keys, the next product that takes it is that with the values.

    Args:
        where: says which module is running, and the moment.
        keep: whether the operands of a module's attention are wanted, or only that it ran.
    """

    def __init__(self, where: Callable[[], tuple[str, int]], keep: Callable[[str], bool]) -> None:
        super().__init__()
        self.seen: list[Attended] = []
        self._where, self._keep = where, keep
        self._products: list[tuple[str, Tensor, Tensor, int]] = []  # where, left, right, and the number of scores
        self._softmax: tuple[str, tuple[int, ...]] | None = None  # one that no product has taken yet: where, and its shape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if func is F.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
            self._add(given["query"], given["key"], given["value"], result)
        elif func is F.multi_head_attention_forward:
            self._add(None, None, None, None)
        elif name in _SOFTMAX and isinstance(result, Tensor) and result.ndim >= 3:
            self._softmax = (self._where()[0], tuple(result.shape))
        elif name in _PRODUCTS and isinstance(result, Tensor) and result.ndim >= 3:
            flat = [x for value in (*args, *(kwargs or {}).values()) for x in (value if isinstance(value, (tuple, list)) else (value,))]
            self._product([x for x in flat if isinstance(x, Tensor)][-2:], result, name != "einsum")
        return result

    def _add(self, q: Tensor | None, k: Tensor | None, v: Tensor | None, z: Tensor | None) -> None:
        inside, at = self._where()
        found = Attended(inside, at)
        if self._keep(inside):
            found.q, found.k, found.v, found.z = (None if x is None else x.detach().clone() for x in (q, k, v, z))
        self.seen.append(found)
        self._products, self._softmax = [], None

    def _product(self, operands: Sequence[Tensor], result: Tensor, plain: bool) -> None:
        if len(operands) < 2:
            return
        left, right = operands
        inside, _ = self._where()
        if self._softmax is not None and left.ndim >= 3:
            around, shape = self._softmax
            # A sink's column may have been cut off.
            if shape[-1] - 1 <= left.shape[-1] <= shape[-1] and left.shape[-2] == shape[-2]:
                # Of several products that make up the scores (content, then positions), the first is that of queries and keys.
                sizes = (left.numel(), left.numel() // left.shape[-1] * shape[-1])
                first = next(((q, k) for path, q, k, size in self._products if path in (inside, around) and size in sizes), None)
                q, k = (None, None) if first is None else (first[0], first[1].transpose(-1, -2))
                self._add(q, k, right if plain else None, result if plain else None)
                return
        if plain and self._keep(inside):
            self._products.append((inside, left, right, result.numel()))

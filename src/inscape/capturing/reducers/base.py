"""The registry of reducers: functions of whole sequences that run inside the hook and give one row per stimulus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from inscape.errors import SiteNotFoundError, nearest

Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Reducer:
    """A registered reducer of sequences, or of attention patterns.

    Attributes:
        name: what stands behind the `|` of a site.
        function: `(x [b, t, d], mask [b, t]) -> [b, width]`, or with `attention`
            `(pattern [b, heads, q, k], queries [b, q], keys [b, k]) -> [b, heads]`.
        width: values per stimulus; 0 for one per head.
        minimum: real positions that it needs.
        range: the values that it can give.
        source: the paper that defines it.
        doc: its docstring.
        attention: it reads attention patterns, not activations.
        square: it compares places of queries and keys, so both must be the same tokens.
    """

    name: str
    function: Function
    width: int
    minimum: int
    range: tuple[float, float]
    source: str
    doc: str
    attention: bool = False
    square: bool = False

    def __call__(self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b w"]:
        """Values [b, width] in fp32 (fp64 for fp64 input); half precision is widened first, positions outside the mask are zeroed."""
        wide = x if x.dtype == torch.float64 else x.float()
        # Pad rows may hold anything, infinities too; a product with 0 would let them through.
        return self.function(wide.masked_fill(~mask[..., None], 0.0), mask)

    def of_pattern(
        self, pattern: Float[Tensor, "b h q k"], queries: Bool[Tensor, "b q"], keys: Bool[Tensor, "b k"]
    ) -> Float[Tensor, "b h"]:
        """Values [b, heads] of attention patterns; weights outside the masks are zeroed first.

        `queries` are the positions that are averaged over, `keys` all real ones.
        """
        wide = pattern if pattern.dtype == torch.float64 else pattern.float()
        outside = ~(queries[:, None, :, None] & keys[:, None, None, :])
        return self.function(wide.masked_fill(outside, 0.0), queries, keys)


_REGISTRY: dict[str, Reducer] = {}


def reducer(
    *,
    width: int = 1,
    minimum: int = 1,
    range: tuple[float, float] = (0.0, float("inf")),
    source: str,
    attention: bool = False,
    square: bool = False,
) -> Callable[[Function], Function]:
    """Registers a function `(x [b, t, d], mask [b, t]) -> [b, width]` under its own name.

    `x` arrives in fp32 or fp64 with zeros outside the mask; a reducer must not depend on how much padding there is. `minimum` is the
    number of real positions that it needs, `range` the values it can give, `source` the paper that defines it.

    With `attention` the function is `(pattern [b, heads, q, k], queries [b, q], keys [b, k]) -> [b, heads]`, with zeros outside the
    masks; `square` says that queries and keys must be the same tokens.

    Raises:
        ValueError: another reducer has the name already, or the function has no docstring.
    """

    def register(function: Function) -> Function:
        name = function.__name__
        if name in _REGISTRY and _REGISTRY[name].function.__module__ != function.__module__:
            raise ValueError(f"a reducer named {name!r} exists already, in {_REGISTRY[name].function.__module__}; choose another name")
        if not function.__doc__:
            raise ValueError(f"reducer {name!r} has no docstring; its first sentence is what the documentation shows")
        per_head = 0 if attention else width
        _REGISTRY[name] = Reducer(name, function, per_head, minimum, range, source, function.__doc__, attention, square)
        return function

    return register


def _discover() -> None:
    package = import_module(__name__.rpartition(".")[0])
    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")


def names(*, attention: bool | None = None) -> list[str]:
    """The names of all reducers, sorted; of those that read attention patterns, or of the others, where `attention` is given."""
    _discover()
    return sorted(name for name, known in _REGISTRY.items() if attention in (None, known.attention))


def get(name: str) -> Reducer:
    """The reducer of this name.

    Raises:
        SiteNotFoundError: there is none; the message lists the nearest.
    """
    _discover()
    if name not in _REGISTRY:
        raise SiteNotFoundError(f"no reducer is named {name!r} (the part of a site after '|'); nearest: {nearest(name, _REGISTRY)}")
    return _REGISTRY[name]

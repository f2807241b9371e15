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

Function = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Reducer:
    """A registered reducer: `reducer(x, mask)` takes [b, t, d] with its mask of real positions and gives [b, width]."""

    name: str
    function: Function
    width: int
    minimum: int
    range: tuple[float, float]
    source: str
    doc: str

    def __call__(self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b w"]:
        """Values [b, width] in fp32 (fp64 for fp64 input); half precision is widened first, positions outside the mask are zeroed."""
        wide = x if x.dtype == torch.float64 else x.float()
        # Pad rows may hold anything, infinities too; a product with 0 would let them through.
        return self.function(wide.masked_fill(~mask[..., None], 0.0), mask)


_REGISTRY: dict[str, Reducer] = {}


def reducer(
    *, width: int = 1, minimum: int = 1, range: tuple[float, float] = (0.0, float("inf")), source: str
) -> Callable[[Function], Function]:
    """Registers a function `(x [b, t, d], mask [b, t]) -> [b, width]` under its own name.

    `x` arrives in fp32 or fp64 with zeros outside the mask; a reducer must not depend on how much padding there is. `minimum` is the
    number of real positions that it needs, `range` the values it can give, `source` the paper that defines it.

    Raises:
        ValueError: another reducer has the name already, or the function has no docstring.
    """

    def register(function: Function) -> Function:
        name = function.__name__
        if name in _REGISTRY and _REGISTRY[name].function.__module__ != function.__module__:
            raise ValueError(f"a reducer named {name!r} exists already, in {_REGISTRY[name].function.__module__}; choose another name")
        if not function.__doc__:
            raise ValueError(f"reducer {name!r} has no docstring; its first sentence is what the documentation shows")
        _REGISTRY[name] = Reducer(name, function, width, minimum, range, source, function.__doc__)
        return function

    return register


def _discover() -> None:
    package = import_module(__name__.rpartition(".")[0])
    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")


def names() -> list[str]:
    """The names of all reducers, sorted."""
    _discover()
    return sorted(_REGISTRY)


def get(name: str) -> Reducer:
    """The reducer of this name.

    Raises:
        SiteNotFoundError: there is none; the message lists the nearest.
    """
    _discover()
    if name not in _REGISTRY:
        raise SiteNotFoundError(f"no reducer is named {name!r} (the part of a site after '|'); nearest: {nearest(name, _REGISTRY)}")
    return _REGISTRY[name]

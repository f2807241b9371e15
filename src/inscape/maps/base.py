"""What a method of mapping one space onto another is, and the registry that finds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from inspect import signature
from pkgutil import iter_modules
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from inscape.arrays import as_rows
from inscape.errors import MapError, nearest
from inscape.store import View
from inscape.summaries import CrossMoments

_AT_ONCE = 2**22  # numbers of one side that are read at a time


class PairedRows:
    """Rows of two spaces that belong together, read block by block or at random: what a method is fitted on.

    Args:
        a: rows of the space that is mapped.
        b: rows of the space that is mapped to; row i of both is one stimulus.
        chosen: the rows to use, ascending.
        sources: one label for each row of the views; rows of one source are dependent.
    """

    def __init__(self, a: View, b: View, chosen: np.ndarray, sources: np.ndarray) -> None:
        self.a, self.b, self.chosen, self._every = a, b, chosen, sources

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.chosen)

    @property
    def sources(self) -> np.ndarray:
        """[n]: what each pair came from."""
        return self._every[self.chosen]

    @cached_property
    def moments(self) -> CrossMoments:
        """Moments of both sides and across, from one pass."""
        pair = CrossMoments()
        for X, Y in self.blocks():
            pair.update(X, Y)
        return pair

    def blocks(self) -> Any:
        """Pairs of blocks of rows, in order."""
        size = max(1, _AT_ONCE // max(self.a.d, self.b.d))
        for at in range(0, self.n, size):
            yield self.rows(np.arange(at, min(at + size, self.n)))

    def rows(self, numbers: np.ndarray | None = None) -> tuple[Float[Tensor, "m p"], Float[Tensor, "m q"]]:
        """Some of the pairs, or all."""
        wanted = self.chosen if numbers is None else self.chosen[numbers]
        first, second = (_read(view, wanted, side) for view, side in ((self.a, "a"), (self.b, "b")))
        return first, second

    def swapped(self) -> PairedRows:
        """The same pairs with a and b exchanged; moments that are there are kept."""
        other = PairedRows(self.b, self.a, self.chosen, self._every)
        if "moments" in self.__dict__:
            other.__dict__["moments"] = self.moments.swap()
        return other


@dataclass(frozen=True)
class Fit:
    """A map of centered rows, both ways.

    Attributes:
        weight: [p, q], from a to b.
        back: [q, p], from b to a.
        tensors: what the method keeps besides.
        told: what it found out, in plain numbers.
    """

    weight: Tensor
    back: Tensor
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    told: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class MapMethod:
    """What the registry knows of a method: enough for its row in the docs and its generated tests.

    Attributes:
        name: as in `ix.align(a, b, method=name)`.
        fit: takes `PairedRows` and the method's options, gives a `Fit`.
        exact: maps of which it finds the very one where b is such a map of a: a subset of {"rotation", "linear", "permutation"}.
        source: the paper, in short.
        what: one line.
        options: names of its options with their defaults.
    """

    name: str
    fit: Callable[..., Fit]
    exact: frozenset[str]
    source: str
    what: str
    options: Mapping[str, Any]

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises `MapError` for an option that the method does not have."""
        for name in options:
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise MapError(f"method {self.name!r} has no option {name!r}; its options: {known}")


_METHODS: dict[str, MapMethod] = {}


def map_method(*, exact: set[str], source: str) -> Callable[[Callable[..., Fit]], Callable[..., Fit]]:
    """Registers a function under its name as a method of `ix.align`; the decorator of each file in `maps/methods`.

    Args:
        exact: maps that it finds exactly: "rotation", "linear", "permutation".
        source: the paper, in short.
    """

    def register(fit: Callable[..., Fit]) -> Callable[..., Fit]:
        name = fit.__name__
        held = _METHODS.get(name)
        if held is not None and held.fit.__module__ != fit.__module__:
            raise ValueError(f"two methods are called {name!r}: one in {held.fit.__module__}, one in {fit.__module__}; rename one")
        options = {key: value.default for key, value in list(signature(fit).parameters.items())[1:]}
        _METHODS[name] = MapMethod(name, fit, frozenset(exact), source, (fit.__doc__ or "").split("\n")[0], options)
        return fit

    return register


def registered() -> Mapping[str, MapMethod]:
    """All methods of `ix.align` by name."""
    package = import_module("inscape.maps.methods")
    for module in iter_modules(package.__path__):
        import_module(f"inscape.maps.methods.{module.name}")
    return dict(sorted(_METHODS.items()))


def method_named(name: str) -> MapMethod:
    """The method of that name.

    Raises:
        MapError: there is none; the message lists the nearest.
    """
    known = registered()
    if name not in known:
        raise MapError(f"method={name!r} is unknown; nearest: {nearest(name, known)}")
    return known[name]


def _read(view: View, wanted: np.ndarray, side: str) -> Tensor:
    rows = view.select(rows=wanted).torch() if len(wanted) != view.n else view.torch()
    return as_rows(rows.to(torch.float64 if rows.dtype == torch.float64 else torch.float32), f"{side} ({view.system}/{view.site})")

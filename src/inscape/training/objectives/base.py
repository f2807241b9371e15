"""What is known about an objective: enough to test what it claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from inscape.errors import DegenerateInputError

KINDS = ("rows", "pair", "layer", "schedule")
F_ = TypeVar("F_", bound=Callable[..., Any])


@dataclass(frozen=True)
class Objective:
    """An objective with its facts; `tests/laws/test_objectives.py` holds each of them to its facts.

    Attributes:
        name: as in `inscape.training.objectives`.
        fn: the function itself.
        kind: "rows" (a number of rows [n, d], with gradients), "pair" (of two such), "layer" (changes a module) or "schedule" (a number of
            the step).
        source: where it comes from.
        range: the least and the largest value of a number.
        better: "lower" or "higher": where training should move it.
        improves: the measure that rises as it gets better.
        invariant: what leaves it as it is, in the words of the measures.
    """

    name: str
    fn: Callable[..., Any]
    kind: str
    source: str
    range: tuple[float, float] = (float("-inf"), float("inf"))
    better: str = "lower"
    improves: str | None = None
    invariant: frozenset[str] = frozenset()


_OBJECTIVES: dict[str, Objective] = {}


def objective(kind: str, *, source: str, invariant: set[str] | None = None, **facts: Any) -> Callable[[F_], F_]:
    """Registers a function under its name with what is known about it; the decorator of each file beside this one.

    Args:
        kind: see `Objective`.
        source: see `Objective`.
        invariant: see `Objective`.
        **facts: `range`, `better` and `improves` of `Objective`.

    Raises:
        ValueError: an unknown kind, or no source.
    """
    if kind not in KINDS or not source:
        raise ValueError(f"kind={kind!r} with source={source!r}: the kinds are {', '.join(KINDS)}, and a source is needed")

    def register(fn: F_) -> F_:
        _OBJECTIVES[fn.__name__] = Objective(fn.__name__, fn, kind, source, invariant=frozenset(invariant or ()), **facts)
        return fn

    return register


def registered() -> Mapping[str, Objective]:
    """All objectives by name."""
    from importlib import import_module
    from pkgutil import iter_modules

    package = import_module("inscape.training.objectives")
    for module in iter_modules(package.__path__):
        import_module(f"inscape.training.objectives.{module.name}")
    return dict(sorted(_OBJECTIVES.items()))


def checked(rows: Tensor, name: str, least: int = 2) -> Tensor:
    """Rows [n, d] of floats, flattened from [b, t, d].

    Raises:
        DegenerateInputError: another shape, no floats, or fewer than `least` rows.
    """
    if rows.ndim < 2 or not rows.is_floating_point():
        raise DegenerateInputError(f"{name} takes floating rows [n, d], got shape {tuple(rows.shape)} of {rows.dtype}")
    flat = rows.flatten(0, -2)
    if flat.shape[0] < least:
        raise DegenerateInputError(f"{name} needs at least {least} rows, got shape {tuple(rows.shape)}; use a larger batch")
    return flat


def tiny(rows: Tensor) -> float:
    """What keeps a division or root by nothing finite, in the precision of the rows."""
    return torch.finfo(rows.dtype).tiny ** 0.5

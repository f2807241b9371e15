"""What every summary has in common, and how a measure states which summary it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor


@dataclass(frozen=True, init=False)
class Need:
    """The options with which a measure wants a summary, written beside the type: `Annotated[Neighbors, Need(metric="cosine", k="k")]`.

    A string that names a keyword option of the measure takes the value of that option, so `k="k"` follows the caller's `k`.

    Example:
        >>> Need(metric="cosine", k="k").resolve({"k": 20})
        {'metric': 'cosine', 'k': 20}
    """

    options: Mapping[str, Any] = field(default_factory=dict)

    def __init__(self, **options: Any) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(options)))

    def __hash__(self) -> int:
        return hash(tuple(sorted((name, repr(value)) for name, value in self.options.items())))

    def resolve(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The summary's options for a measure whose own options have the values `chosen`."""
        return {name: chosen[value] if isinstance(value, str) and value in chosen else value for name, value in self.options.items()}


class Summary(ABC):
    """What is kept of the rows of one site (`arity` 1) or of a pair of sites (`arity` 2).

    Additive summaries merge over disjoint rows and have `update` and `merge`; most can also be subtracted with `minus`.
    Summaries of a fixed row set (`additive = False`) have `take(idx)`, the summary of the rows in that order.
    """

    additive: ClassVar[bool]
    arity: ClassVar[int] = 1
    labeled: ClassVar[bool] = False  # whether `of` takes a label per row after the rows
    sequenced: ClassVar[bool] = False  # whether `of` takes the sequence of each row after the rows
    factored: ClassVar[bool] = False  # whether the labels may be several columns, a factor each
    beside: ClassVar[str] = ""  # what `of` takes after the rows: "positions" of the units, or a "map" of rows to rows
    parameters: ClassVar[str] = ""  # "input": the rows are a matrix of parameters; "beside": it holds the layer that reads the rows

    @classmethod
    @abstractmethod
    def of(cls, *args: Any, **options: Any) -> Summary:
        """The summary of all rows at once."""

    @property
    def nbytes(self) -> int:
        """Bytes that the summary holds now, derived quantities that are kept included."""
        return sum(tensor.element_size() * tensor.nelement() for tensor in _tensors(vars(self).values()))

    def _forget(self) -> None:
        """Drops derived quantities after the sums have changed."""
        for name in [name for name in vars(self) if isinstance(getattr(type(self), name, None), cached_property)]:
            del vars(self)[name]


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Summary):
            yield from _tensors(vars(value).values())
        elif isinstance(value, dict):
            yield from _tensors(value.values())  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, tuple):
            yield from _tensors(value)  # pyright: ignore[reportUnknownArgumentType]

"""What every kind of dictionary is: a small frozen object with the options of a fit, which knows how to encode once it is fitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from inscape.dictionaries.codes import Codes
from inscape.dictionaries.sparse import decode
from inscape.errors import DictionaryError, nearest

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """Base of all kinds: what to fit, and how rows become codes once the numbers are there.

    A kind is a subclass in a file of its own under `@dictionary_kind`. It names its tensors, selects codes, and either is trained by
    gradients (`Trained`) or fits itself in closed form (`Closed`).

    Attributes:
        width: m, the number of features.
    """

    width: int
    kind: ClassVar[str] = ""
    signed: ClassVar[bool] = False  # whether codes may be negative
    shifts: ClassVar[bool] = True  # whether an offset of all rows moves the reconstructions along and changes nothing else
    sites: ClassVar[str] = "one"  # "one", a "pair" (read and written), or "several" side by side
    centers: ClassVar[bool] = True  # whether b_dec is taken from the rows before they are encoded

    def __post_init__(self) -> None:
        if isinstance(self.width, bool) or int(self.width) != self.width or self.width < 1:
            raise DictionaryError(
                f"{self.kind or type(self).__name__}: width={self.width!r}; expected a whole number of features, 1 or more"
            )

    def sides(self, views: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Which of the given sites are read, and which are written."""
        return tuple(views), tuple(views)

    def shapes(self, d: int, out: int) -> dict[str, tuple[int, ...]]:
        """The tensors of a fitted dictionary that reads d units and writes `out` of them."""
        return {"W_enc": (d, self.width), "W_dec": (self.width, out), "b_enc": (self.width,), "b_dec": (out,)}

    def reads(self, t: Tensors) -> int:
        """Number of units that the rows have."""
        return t["W_enc"].shape[0] if "W_enc" in t else t["W_dec"].shape[1]

    def check(self, t: Tensors) -> None:
        """Raises `DictionaryError` where a tensor is missing, has another shape, or is not finite."""
        if "W_dec" not in t or t["W_dec"].ndim != 2:
            raise DictionaryError(
                f"a dictionary needs W_dec [m, d]; got {names(f'{name} {tuple(value.shape)}' for name, value in t.items())}"
            )
        wanted = self.shapes(self.reads(t), t["W_dec"].shape[1])
        for name, shape in wanted.items():
            if name not in t:
                raise DictionaryError(f"{self.kind} needs a tensor {name} of shape {shape}; got {names(t)}")
            if tuple(t[name].shape) != shape:
                raise DictionaryError(f"{self!r}: {name} has shape {tuple(t[name].shape)}, expected {shape}")
        for name, value in t.items():
            if name not in wanted:
                raise DictionaryError(f"{self.kind} has no tensor {name!r}; it has {names(wanted)}")
            if not bool(torch.isfinite(value).all()):
                raise DictionaryError(f"{name} (shape {tuple(value.shape)}) holds NaN or infinite values")

    def implied(self, name: str, t: Tensors) -> Tensor | None:
        """One of W_enc and b_enc, for kinds that do not keep it because it follows from the others."""
        return None

    def prepare(self, t: Tensors, n: int) -> Tensors:
        """The tensors with whatever is worth computing once before n rows are encoded."""
        return t

    def activations(self, t: Tensors, x: Tensor) -> Tensor:
        """[n, m]: what codes are selected from."""
        rows = x - t["b_dec"] if self.centers else x
        return rows @ t["W_enc"] + t["b_enc"]

    def encode(self, t: Tensors, x: Tensor) -> Codes:
        """Codes of rows [n, d]."""
        return self.select(t, self.activations(t, x))

    def select(self, t: Tensors, activations: Tensor) -> Codes:
        """The codes in activations [n, m]."""
        raise DictionaryError(f"{type(self).__name__} does not say which activations are codes; define select(tensors, activations)")

    def decode(self, t: Tensors, codes: Codes) -> Tensor:
        """Rows [n, out] from codes."""
        return decode(codes, t["W_dec"]) + t["b_dec"]

    def rebuild(self, t: Tensors, x: Tensor, codes: Codes) -> Tensor:
        """Rows [n, out] from codes and, for kinds with a path around them, from the rows [n, d] themselves."""
        return self.decode(t, codes)

    def describe(self) -> dict[str, Any]:
        """Kind and options as JSON-ready data."""
        told = {item.name: getattr(self, item.name) for item in fields(self) if item.init}
        return {"kind": self.kind, **{name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}}

    def __repr__(self) -> str:
        shown = [
            f"{item.name}={getattr(self, item.name)!r}" for item in fields(self) if item.init and getattr(self, item.name) != item.default
        ]
        return f"{self.kind}({', '.join(shown)})"


@dataclass(frozen=True)
class DictionaryKind:
    """What the registry knows of a kind: enough to generate its tests and its row in the docs.

    Attributes:
        name: as in `ix.dictionaries.<name>`.
        make: makes a recipe.
        example: options for rows of `d` units, small enough for a test.
        source: where it comes from.
        what: one line.
    """

    name: str
    make: type[Recipe]
    example: Callable[[int], dict[str, Any]]
    source: str
    what: str = field(default="")


_KINDS: dict[str, DictionaryKind] = {}
R_ = TypeVar("R_", bound=Recipe)


def dictionary_kind(name: str, *, example: Callable[[int], dict[str, Any]], source: str) -> Callable[[type[R_]], type[R_]]:
    """Registers a class of recipes under a name; the decorator of each file in `dictionaries/kinds`.

    Args:
        name: as users write it: `ix.dictionaries.<name>(…)`.
        example: options for rows of `d` units, from which tests are generated.
        source: the paper.
    """

    def register(cls: type[R_]) -> type[R_]:
        cls.kind = name
        cls.__repr__ = Recipe.__repr__
        _KINDS[name] = DictionaryKind(name, cls, example, source, (cls.__doc__ or "").strip().splitlines()[0])
        return cls

    return register


def registered() -> Mapping[str, DictionaryKind]:
    """All kinds of dictionaries by name."""
    from importlib import import_module
    from pkgutil import iter_modules

    package = import_module("inscape.dictionaries.kinds")
    for module in iter_modules(package.__path__):
        import_module(f"inscape.dictionaries.kinds.{module.name}")
    return dict(sorted(_KINDS.items()))


def from_description(told: Mapping[str, Any]) -> Recipe:
    """The recipe that `Recipe.describe` wrote down.

    Raises:
        DictionaryError: the kind is unknown, or an option is.
    """
    kinds = registered()
    kind = kinds.get(str(told.get("kind")))
    if kind is None:
        raise DictionaryError(f"unknown kind of dictionary {told.get('kind')!r}; nearest: {nearest(str(told.get('kind')), kinds)}")
    options: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items() if key != "kind"}
    known = [item.name for item in fields(kind.make)]
    strange = [name for name in options if name not in known]
    if strange:
        raise DictionaryError(f"{kind.name} has no option {strange[0]!r}; it has {', '.join(known)}")
    return kind.make(**options)


def check_count(name: str, value: Any, width: int, who: str) -> None:
    """Raises `DictionaryError` where a number of active features is no whole number from 1 to the width."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= width:
        raise DictionaryError(f"{who}: {name}={value!r}; expected a whole number from 1 to the width, {width}")


def check_positive(who: str, zero: bool = False, **options: Any) -> None:
    """Raises `DictionaryError` where an option is no finite number above 0 (or, with `zero`, at least 0)."""
    for name, value in options.items():
        good = (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (value > 0 or (zero and value == 0))
        )
        if not good:
            raise DictionaryError(f"{who}: {name}={value!r}; expected a finite number {'of at least' if zero else 'above'} 0")


def unit_rows(matrix: Tensor) -> Tensor:
    """Rows [m, d] of length 1; rows of length 0 stay 0."""
    return matrix / torch.linalg.vector_norm(matrix, dim=1, keepdim=True).clamp(min=torch.finfo(matrix.dtype).tiny)


def names(kinds: Iterable[str]) -> str:
    """Names for a message."""
    return ", ".join(kinds)

"""What every edit is: a small frozen object that changes activations, checks that it fits, and can be written down."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from inscape.errors import EditError, nearest
from inscape.models.hooks import Moment
from inscape.models.sites import Site

Tokens = str | Tensor | Sequence[int]


@dataclass(frozen=True, eq=False)
class Edit:
    """Base of all edits: a rule that turns activations `[b, t, d]` (or `[b, d]`) into others of the same shape.

    Attributes:
        tokens: which tokens it acts on: "all", "last" (the last real token of each pass, so every new one while generating), a mask
            `[b, t]` or `[t]`, or positions; both count columns of the whole sequence, also when a key-value cache holds the first
            ones. Columns beyond a mask are left alone; negative positions count from the end of the pass.
    """

    tokens: Tokens = field(default="all", kw_only=True)
    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", _read_tokens(self.tokens))

    def change(self, x: Tensor, offset: int) -> Tensor:
        """The new activations; `offset` columns of the sequence came before this pass."""
        raise EditError(f"{type(self).__name__} says nothing about what it changes; define change(x, offset)")

    def check(self, site: Site, width: int | None) -> None:
        """Raises `EditError` when this cannot be applied at a site of `width` units (`None`: not known before the run)."""

    def act(self, site: Site, x: Tensor, moment: Moment) -> Tensor:
        """Applies the change to the chosen tokens.

        Raises:
            EditError: shapes do not fit.
        """
        try:
            new = self.change(x, moment.offset)
        except RuntimeError as error:
            raise EditError(
                f"edit {self!r} failed at site {site.name!r}, whose activations have shape {tuple(x.shape)}: {error}"
            ) from error
        if new.shape != x.shape:
            raise EditError(
                f"edit {self!r} turned activations of shape {tuple(x.shape)} at site {site.name!r} into {tuple(new.shape)}; "
                "an edit must keep the shape"
            )
        if isinstance(self.tokens, str) and self.tokens == "all":
            return new
        return torch.where(_chosen(self.tokens, site, x, moment)[..., None], new, x)

    def describe(self, values: bool = False) -> dict[str, Any]:
        """The edit as JSON-ready data: kind, numbers, and each tensor by shape, norm and SHA-256.

        Args:
            values: also the numbers of each tensor, so that `from_description` can make the edit again.
        """
        told: dict[str, Any] = {"kind": self.kind}
        for item in (item for item in fields(self) if item.init):
            told[item.name] = _tell(getattr(self, item.name), values)
        return told

    def __repr__(self) -> str:
        parts = [f"{item.name}={_short(getattr(self, item.name))}" for item in fields(self) if item.init]
        shown = [part for part in parts if part != "tokens='all'" and not part.endswith("=None")]
        return f"{self.kind}({', '.join(shown)})"


@dataclass(frozen=True)
class EditKind:
    """What the registry knows of a kind of edit: enough to generate its tests and its row in the docs.

    Attributes:
        name: as in `ix.edits.<name>`.
        make: makes one.
        example: arguments for a site of `d` units.
        neutral: arguments under which it changes nothing (up to rounding).
    """

    name: str
    make: type[Edit]
    example: Callable[[int], dict[str, Any]]
    neutral: Callable[[int], dict[str, Any]]


_KINDS: dict[str, EditKind] = {}
E_ = TypeVar("E_", bound=Edit)


def edit_kind(
    name: str, *, example: Callable[[int], dict[str, Any]], neutral: Callable[[int], dict[str, Any]]
) -> Callable[[type[E_]], type[E_]]:
    """Registers a class of edits under a name; the decorator of each file in `edits/kinds`."""

    def register(cls: type[E_]) -> type[E_]:
        cls.kind = name
        cls.__repr__ = Edit.__repr__  # a dataclass would print whole tensors
        _KINDS[name] = EditKind(name, cls, example, neutral)
        return cls

    return register


def registered() -> Mapping[str, EditKind]:
    """All kinds of edits by name."""
    from importlib import import_module
    from pkgutil import iter_modules

    package = import_module("inscape.edits.kinds")
    for module in iter_modules(package.__path__):
        import_module(f"inscape.edits.kinds.{module.name}")
    return dict(sorted(_KINDS.items()))


def from_description(told: Mapping[str, Any]) -> Edit:
    """The edit that `Edit.describe(values=True)` wrote down.

    Raises:
        EditError: the kind is unknown, or the description was made without values.
    """
    kinds = registered()
    kind = kinds.get(str(told.get("kind")))
    if kind is None:
        raise EditError(f"unknown kind of edit {told.get('kind')!r}; nearest: {nearest(str(told.get('kind')), kinds)}")
    return kind.make(**{key: _untell(key, value) for key, value in told.items() if key != "kind"})


def numbers(value: Any, name: str) -> Tensor:
    """A floating tensor, as it is where it is one already (so that it can be trained).

    Raises:
        EditError: these are not finite numbers.
    """
    if hasattr(value, "torch") and not isinstance(value, Tensor):
        value = value.torch()
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EditError(f"{name} must be numbers, got {type(value).__name__}: {error}") from error
    tensor = tensor if tensor.is_floating_point() else tensor.to(torch.float32)
    if not bool(torch.isfinite(tensor).all()):
        raise EditError(f"{name} (shape {tuple(tensor.shape)}) holds NaN or infinite values; an edit needs finite numbers")
    return tensor


def like(tensor: Tensor, x: Tensor) -> Tensor:
    """A tensor on the device and in the dtype of the activations."""
    return tensor.to(device=x.device, dtype=x.dtype)


def check_width(found: int, width: int | None, site: Site, what: str) -> None:
    """Raises `EditError` when a vector's length is not the site's width."""
    if width is not None and found != width:
        raise EditError(f"{what} has {found} units, but site {site.name!r} has {width}; give one of length {width}")


def check_units(units: Sequence[int] | None, width: int | None, site: Site) -> None:
    """Raises `EditError` when a unit does not exist."""
    bad = [unit for unit in units or () if width is not None and not -width <= unit < width]
    if bad:
        raise EditError(f"site {site.name!r} has {width} units (0 to {width and width - 1}); there is no unit {bad[0]}")


def _read_tokens(tokens: Any) -> Tokens:
    if isinstance(tokens, str):
        if tokens not in ("all", "last"):
            raise EditError(f"tokens={tokens!r} is not known; give 'all', 'last', a mask [b, t] or [t], or a list of positions")
        return tokens
    if isinstance(tokens, int):
        return (tokens,)
    chosen = torch.as_tensor(tokens)
    if chosen.dtype == torch.bool:
        if chosen.ndim not in (1, 2):
            raise EditError(f"a token mask has shape [b, t] or [t], got {tuple(chosen.shape)}")
        return chosen
    if chosen.ndim != 1 or chosen.is_floating_point() or len(chosen) == 0:
        raise EditError(f"token positions are a list of whole numbers, got shape {tuple(chosen.shape)} of {chosen.dtype}")
    return tuple(int(position) for position in chosen)


def _chosen(tokens: Tokens, site: Site, x: Tensor, moment: Moment) -> Tensor:
    if x.ndim != 3:
        raise EditError(
            f"site {site.name!r} holds one vector per stimulus (shape {tuple(x.shape)}), so tokens={_short(tokens)} cannot be chosen"
        )
    b, t = x.shape[:2]
    begin, mask = moment.offset, torch.zeros(b, t, dtype=torch.bool, device=x.device)
    if isinstance(tokens, str):  # "last"
        real = moment.mask
        if real is None or bool(real.all()):
            mask[:, -1] = True
            return mask
        if real.shape[1] != begin + t:
            raise EditError(
                f"tokens='last': the attention mask has {real.shape[1]} columns, but site {site.name!r} has {begin + t} positions; "
                "give a mask [b, t]"
            )
        columns = torch.arange(t, device=x.device)
        here = real[:, begin:].to(x.device).bool()
        mask[torch.arange(b, device=x.device), torch.where(here, columns, 0).amax(1)] = True
        return mask
    if isinstance(tokens, Tensor):
        given = tokens.to(x.device)
        given = given.expand(b, -1) if given.ndim == 1 else given
        if given.shape[0] not in (1, b):
            raise EditError(f"the token mask has {given.shape[0]} rows, but the batch at site {site.name!r} has {b}")
        part = given[:, begin : begin + t]
        mask[:, : part.shape[1]] = part
        return mask
    for position in tokens:
        column = t + position if position < 0 else position - begin
        if not moment.growing and not 0 <= column < t:  # while a cache grows, a later pass may hold it
            raise EditError(f"token position {position} lies outside the {t} positions at site {site.name!r}")
        if 0 <= column < t:
            mask[:, column] = True
    return mask


def _short(value: Any) -> str:
    return f"<{'×'.join(map(str, value.shape))} {str(value.dtype).removeprefix('torch.')}>" if isinstance(value, Tensor) else repr(value)


def _tell(value: Any, values: bool) -> Any:
    if not isinstance(value, Tensor):
        return list(value) if isinstance(value, tuple) else value
    plain = value.detach().cpu()
    exact = plain.to(torch.float64) if plain.is_floating_point() else plain
    told = {
        "shape": list(plain.shape),
        "dtype": str(plain.dtype).removeprefix("torch."),
        "norm": float(exact.double().norm()),
        "sha256": hashlib.sha256(exact.contiguous().numpy().tobytes()).hexdigest(),
    }
    return {**told, "values": exact.tolist()} if values else told


def _untell(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return tuple(value) if isinstance(value, list) else value
    if "values" not in value:
        raise EditError(f"the description of {name!r} holds no values; make it with describe(values=True)")
    return torch.tensor(value["values"], dtype=getattr(torch, value["dtype"])).reshape(value["shape"])

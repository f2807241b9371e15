"""What a section of a report is, and the registry that finds the one for a kind of result."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from inscape.errors import ResultError


@dataclass(frozen=True)
class Finding:
    """One sentence in HTML with its small print; `weight` orders findings, larger first."""

    text: str
    detail: str
    weight: float = 0.0


@dataclass(frozen=True)
class Section:
    """What one result adds to the page: findings in words, what cannot be said, figures, and the measures it used."""

    title: str
    findings: tuple[Finding, ...]
    cautions: tuple[str, ...]
    body: str
    measures: tuple[str, ...]


@runtime_checkable
class Told(Protocol):
    """What a report can tell: a `Result`, or something that sums itself up in one, such as the features of a dictionary."""

    @property
    def kind(self) -> str:
        """Which section fits."""
        ...


Renderer = Callable[[Any, str], Section]
_renderers: dict[str, Renderer] = {}


def section(kind: str) -> Callable[[Renderer], Renderer]:
    """Registers the function that turns results of this kind into a section; it takes the result and a unique name.

    Example:
        >>> @section("probe")                                   # doctest: +SKIP
        ... def probe_section(result: Result, name: str) -> Section: ...
    """

    def register(renderer: Renderer) -> Renderer:
        held = _renderers.get(kind)
        if held is not None and (held.__module__, held.__qualname__) != (renderer.__module__, renderer.__qualname__):
            raise ValueError(f"two sections are registered for results of kind {kind!r}: {held.__module__} and {renderer.__module__}")
        _renderers[kind] = renderer
        return renderer

    return register


def render(result: Told, name: str) -> Section:
    """The section of one result, or of what has one.

    Raises:
        ResultError: no section is known for its kind.
    """
    from inscape.reporting import sections

    for info in pkgutil.iter_modules(sections.__path__):
        import_module(f"{sections.__name__}.{info.name}")
    if result.kind not in _renderers:
        raise ResultError(f"the report has no section for results of kind {result.kind!r}; it has {', '.join(sorted(_renderers))}")
    return _renderers[result.kind](result, name)

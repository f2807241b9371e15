"""The one list of measures: filled by the decorator, found by walking the package and by the entry-point group."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from importlib.metadata import entry_points
from typing import Any

from inscape.errors import InscapeWarning, UnknownMeasureError, nearest
from inscape.measures.definition import Measure
from inscape.measures.facts import ordered

GROUP = "inscape.measures"
_PACKAGE = "inscape.measures"
# Names that the package itself uses; a measure of that name could not be reached.
_RESERVED = frozenset({"measure", "compare", "plan", "get", "names", "all_measures", "table", "base", "definition", "facts", "registry"})

_measures: dict[str, Measure] = {}
_discovered: list[str] = []


def add(measure: Measure) -> Measure:
    """Registers a measure under its name.

    Raises:
        ValueError: the name is reserved, or another function holds it.
    """
    name = measure.name
    if name in _RESERVED:
        raise ValueError(f"a measure cannot be called {name!r}: the package uses that name")
    held = _measures.get(name)
    if held is not None and (held.__module__, held.__qualname__) != (measure.__module__, measure.__qualname__):
        raise ValueError(f"two measures are called {name!r}: one in {held.__module__}, one in {measure.__module__}; rename one")
    _measures[name] = measure
    return measure


def discover() -> None:
    """Imports every module of the package and every entry point of the group `inscape.measures`, once."""
    if _discovered:
        return
    _discovered.append(_PACKAGE)  # first, because the imports below may ask for measures themselves
    package = importlib.import_module(_PACKAGE)
    try:
        for info in pkgutil.walk_packages(package.__path__, prefix=f"{_PACKAGE}."):
            importlib.import_module(info.name)
    except BaseException:
        _discovered.clear()  # a file that fails must fail again next time, not leave half a registry behind
        raise
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:  # somebody else's package must not take ours down
            warnings.warn(f"the measures of the entry point {point.value!r} could not be loaded: {error!r}", InscapeWarning, stacklevel=2)
    for name, measure in _measures.items():
        # A file that is called like its measure would otherwise stand in its place: Python binds submodules on import.
        setattr(sys.modules[_PACKAGE], name, measure)


def get(name: str) -> Measure:
    """The measure of this name.

    Raises:
        UnknownMeasureError: there is none; the text lists the nearest names.
    """
    discover()
    if name not in _measures:
        raise UnknownMeasureError(f"there is no measure {name!r}; the nearest: {nearest(name, sorted(_measures))}. All: `inscape measures`")
    return _measures[name]


def names() -> list[str]:
    """All names, sorted."""
    discover()
    return sorted(_measures)


def all_measures() -> list[Measure]:
    """All measures, sorted by name."""
    return [_measures[name] for name in names()]


def table() -> list[dict[str, Any]]:
    """One row per measure for the docs, the command line and the glossary of a report."""
    return [
        {
            "name": measure.name,
            "what": measure.what,
            "arity": "a pair" if measure.arity == 2 else "one system",
            "labels": measure.labeled,
            "range": measure.facts.range_text,
            "higher": measure.higher,
            "invariant": ordered(measure.invariant),
            "sensitive": ordered(measure.sensitive),
            "needs": sorted({cls.__name__ for cls, _ in measure.needs.values()}),
            "options": measure.options,
            "source": measure.source,
            "cost": measure.cost,
            "bias": measure.bias,
            "null": measure.null,
            "status": measure.status,
        }
        for measure in all_measures()
    ]

"""The registry of measures of one system and of a pair, and the verbs that run them.

Every measure is a function of this module: `ix.measures.linear_cka(X, Y)`. `names()` lists them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from inscape.errors import UnknownMeasureError
from inscape.measures.registry import all_measures, get, names, table

if TYPE_CHECKING:
    from inscape.measures.best import best_match
    from inscape.measures.units import match_units
    from inscape.measures.verbs import compare, measure, plan

__all__ = ["all_measures", "best_match", "compare", "get", "match_units", "measure", "names", "plan", "table"]

_VERBS = {"best_match": "best", "compare": "verbs", "match_units": "units", "measure": "verbs", "plan": "verbs"}


def __getattr__(name: str) -> object:
    if name in _VERBS:  # they stand above the registry, and need stores and statistics that a single measure does not
        return getattr(import_module(f"inscape.measures.{_VERBS[name]}"), name)
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return get(name)
    except UnknownMeasureError as error:
        raise AttributeError(str(error)) from None


def __dir__() -> list[str]:
    return sorted({*__all__, *names()})

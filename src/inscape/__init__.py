"""inscape: see, compare, explain and change what neural networks represent.

Names are loaded on first use, so `import inscape` stays light: no torch, no matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# public name -> where it lives; a name that is a room of its own maps to the module itself.
_HOMES = {
    "load": "inscape.models",
    "Model": "inscape.models",
    "Stimuli": "inscape.capturing",
    "capture": "inscape.capturing",
    "Store": "inscape.store",
    "View": "inscape.store",
    "open": "inscape.store",
    "plan": "inscape.measures",
    "measure": "inscape.measures",
    "compare": "inscape.measures",
    "rdm": "inscape.rsa",
    "Result": "inscape.results",
    "align": "inscape.maps",
    "merge_features": "inscape.maps",
    "swap": "inscape.swaps",
    "edit": "inscape.edits",
    "decompose": "inscape.dictionaries",
    "report": "inscape.reporting",
    "Monitor": "inscape.training",
    "trajectory": "inscape.training",
}
_ROOMS = ("measures", "edits", "dictionaries", "summaries", "stats", "zoo", "errors")

# Spelled out, so that editors and type checkers can read it; a test holds it equal to the two tables above.
__all__ = [
    "Model",
    "Monitor",
    "Result",
    "Stimuli",
    "Store",
    "View",
    "__version__",
    "align",
    "capture",
    "compare",
    "decompose",
    "dictionaries",
    "edit",
    "edits",
    "errors",
    "load",
    "measure",
    "measures",
    "merge_features",
    "open",
    "plan",
    "rdm",
    "report",
    "stats",
    "summaries",
    "swap",
    "trajectory",
    "zoo",
]

if TYPE_CHECKING:
    from inscape import dictionaries, edits, errors, measures, stats, summaries, zoo
    from inscape.capturing import Stimuli, capture
    from inscape.dictionaries import decompose
    from inscape.edits import edit
    from inscape.maps import align, merge_features
    from inscape.measures import compare, measure, plan
    from inscape.models import Model, load
    from inscape.reporting import report
    from inscape.results import Result
    from inscape.rsa import rdm
    from inscape.store import Store, View, open
    from inscape.swaps import swap
    from inscape.training import Monitor, trajectory


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return import_module(f"inscape.{name}")
    raise AttributeError(f"module 'inscape' has no attribute {name!r}; the public names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)

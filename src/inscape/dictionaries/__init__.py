"""Dictionaries: the features of a site, as directions of which each row is a sparse combination.

Kinds are found by name, so that a new one is one new file in `kinds/`: `ix.dictionaries.TopK(width=8192, k=32)`, ….
"""

from __future__ import annotations

from inscape.dictionaries.ablating import ablate_features
from inscape.dictionaries.base import DictionaryKind, Recipe, dictionary_kind, from_description, registered
from inscape.dictionaries.behavior import loss_recovered
from inscape.dictionaries.codes import Codes
from inscape.dictionaries.exchange import Format, dictionary_format, registered_formats
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.geometry import lobes, parallelism
from inscape.dictionaries.manifold import feature_clusters, multidimensional
from inscape.dictionaries.plane import mixture_index, separability_index
from inscape.dictionaries.probing import sparse_probing
from inscape.dictionaries.reading.features import Example, Feature, Features
from inscape.dictionaries.reading.interpretability import Passage, interpretability
from inscape.dictionaries.sharing import site_shares
from inscape.dictionaries.truth import recovery, stability
from inscape.dictionaries.verbs import decompose

__all__ = [
    "Codes",
    "Dictionary",
    "DictionaryKind",
    "Example",
    "Feature",
    "Features",
    "Format",
    "Passage",
    "Recipe",
    "ablate_features",
    "decompose",
    "dictionary_format",
    "dictionary_kind",
    "feature_clusters",
    "from_description",
    "interpretability",
    "lobes",
    "loss_recovered",
    "mixture_index",
    "multidimensional",
    "parallelism",
    "recovery",
    "registered",
    "registered_formats",
    "separability_index",
    "site_shares",
    "sparse_probing",
    "stability",
]


def __getattr__(name: str) -> type[Recipe]:
    kinds = {} if name.startswith("_") else registered()
    if name in kinds:
        return kinds[name].make
    raise AttributeError(f"module 'inscape.dictionaries' has no attribute {name!r}; the kinds of dictionaries are {', '.join(kinds)}")


def __dir__() -> list[str]:
    return sorted([*__all__, *registered()])

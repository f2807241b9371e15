"""Kinds that fit themselves, without steps of gradients."""

from __future__ import annotations

from dataclasses import dataclass

from inscape.dictionaries.base import Recipe, Tensors
from inscape.errors import DictionaryError
from inscape.store import View


@dataclass(frozen=True)
class Closed(Recipe):
    """Base of kinds that are computed from all rows of a site."""

    def fit(self, view: View, seed: int) -> Tensors:
        """The tensors of the fitted dictionary."""
        raise DictionaryError(f"{type(self).__name__} does not say how it is fitted; define fit(view, seed)")

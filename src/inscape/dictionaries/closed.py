"""Kinds that fit themselves, without steps of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from inscape.arrays import check_finite
from inscape.dictionaries.base import Recipe, Tensors
from inscape.errors import DegenerateInputError, DictionaryError
from inscape.store import View
from inscape.summaries import Moments


@dataclass(frozen=True)
class Closed(Recipe):
    """Base of kinds that are computed from all rows of a site."""

    def fit(self, view: View, seed: int) -> tuple[Tensors, dict[str, Any]]:
        """The tensors of the fitted dictionary, and what is worth knowing about the fit: rows, iterations, whether it converged."""
        raise DictionaryError(f"{type(self).__name__} does not say how it is fitted; define fit(view, seed)")


def moments_of(view: View) -> Moments:
    """The moments of a site, block by block.

    Raises:
        DegenerateInputError: rows are not finite, or all rows are equal.
    """
    moments = Moments()
    for rows in view.batches():
        check_finite(rows, f"{view.system}/{view.site}")
        moments.update(rows)
    if view.n == 0:
        raise DegenerateInputError(f"{view.system}/{view.site} has no rows")
    if moments.trace <= 1e-24 * moments.n * float(torch.linalg.vector_norm(moments.mean)) ** 2 or moments.trace <= 0:
        raise DegenerateInputError(f"all {view.n} rows of {view.system}/{view.site} are equal; there is nothing to decompose")
    return moments

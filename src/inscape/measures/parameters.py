"""Matrices of parameters, of a model or given by name, as sites that measures of weights go through."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from inscape.errors import SiteNotFoundError, nearest
from inscape.models import Model
from inscape.store import Store, View
from inscape.summaries.weights import matrices


def parameters_of(model: Model, names: str | Sequence[str] | None = None) -> list[View]:
    """One view per matrix of parameters, rows are outputs; kernels of convolutions are flattened to [out, rest].

    Args:
        model: the model.
        names: a name or glob of parameters, or several; None for all.

    Raises:
        SiteNotFoundError: no matrix has such a name; the text lists the nearest.
    """
    found: dict[str, Any] = dict(matrices(model.module))
    wanted = ["*"] if names is None else [names] if isinstance(names, str) else list(names)
    chosen: dict[str, Any] = {}
    for pattern in wanted:
        matching = [name for name in found if fnmatch.fnmatchcase(name, pattern)]
        if not matching:
            raise SiteNotFoundError(f"{model.name!r} has no matrix of parameters {pattern!r}; nearest: {nearest(pattern, found)}")
        chosen |= {name: found[name] for name in matching}
    return matrices_as_views(chosen, model.name)


def matrices_as_views(given: Mapping[str, Any], system: str) -> list[View]:
    """One view per matrix; they share no rows, so each is a store of its own."""
    return [Store.from_arrays({name: matrix}, system=system)[name] for name, matrix in given.items()]

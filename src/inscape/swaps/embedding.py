"""Vectors of queries and corpus from whatever an encoder is: a model, a function, a store, or arrays that are there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from inscape.arrays import as_rows
from inscape.capturing import Stimuli, capture
from inscape.errors import StoreMismatchError
from inscape.models import Model
from inscape.store import Store, View
from inscape.store import open as open_store
from inscape.store.view import single

FORMS = "a model (or its name), a function of a list of texts, a store (or its folder), or a pair of arrays (queries, corpus)"


@dataclass(frozen=True)
class Embedded:
    """One encoder's vectors.

    Attributes:
        name: what it is called in results.
        queries: [n, d].
        corpus: [m, d].
        cut: how many texts were cut at the encoder's limit, "queries" and "corpus"; empty where that is not known.
    """

    name: str
    queries: Tensor
    corpus: Tensor
    cut: Mapping[str, int]


def embedded(system: Any, queries: Stimuli, corpus: Stimuli, name: str, *, site: str, tokens: Any) -> Embedded:
    """The vectors of one encoder.

    Raises:
        StoreMismatchError: another number of vectors than of queries or documents, a store that lacks one of them, or no form of encoder.
    """
    if isinstance(system, str) and (Path(system) / "manifest.json").is_file():
        system = open_store(system)
    if isinstance(system, (Store, View)):
        view = system if isinstance(system, View) else single([system[one] for one in system.sites])
        parts = [_rows_of(view, stimuli, side) for stimuli, side in ((queries, "queries"), (corpus, "corpus"))]
        return Embedded(f"{view.system}/{view.site}", parts[0], parts[1], {})
    if isinstance(system, (str, Path, Model, nn.Module)):
        return _captured(system, queries, corpus, name, site, tokens)
    if callable(system):
        call = cast(Callable[[list[Any]], Any], system)
        given = [call([stimuli[i] for i in range(len(stimuli))]) for stimuli in (queries, corpus)]
        name = str(getattr(system, "__name__", name))
    elif isinstance(system, Mapping) and {"queries", "corpus"} <= set(system):
        given = [system["queries"], system["corpus"]]
    elif isinstance(system, (tuple, list)) and len(system) == 2:
        given = [system[0], system[1]]
    else:
        raise StoreMismatchError(f"{name} is {type(system).__name__}; an encoder is {FORMS}")
    parts = [as_rows(_plain(rows), f"{name}: {side}") for rows, side in zip(given, ("queries", "corpus"), strict=True)]
    for rows, stimuli, side in zip(parts, (queries, corpus), ("queries", "corpus"), strict=True):
        if len(rows) != len(stimuli):
            raise StoreMismatchError(f"{name} has {len(rows)} vectors for {len(stimuli)} {side} (shape {tuple(rows.shape)}); one each")
    if parts[0].shape[1] != parts[1].shape[1]:
        raise StoreMismatchError(f"{name}: queries have {parts[0].shape[1]} units, the corpus {parts[1].shape[1]}; both are of one encoder")
    return Embedded(name, parts[0], parts[1], {})


def _captured(system: Any, queries: Stimuli, corpus: Stimuli, name: str, site: str, tokens: Any) -> Embedded:
    parts: list[Tensor] = []
    cut: dict[str, int] = {}
    for stimuli, side in ((queries, "queries"), (corpus, "corpus")):
        store = capture(system, stimuli, sites=site, tokens=tokens)
        read = {**store.manifest.plan.get("input", {}), **store.manifest.notes.get("read", {})}
        if "truncated_stimuli" in read:
            cut[side] = int(read["truncated_stimuli"])
        rows = single([store[one] for one in store.sites]).torch()
        if len(rows) != len(stimuli):
            raise StoreMismatchError(
                f"site {site!r} of {store.system} gives {len(rows)} rows for {len(stimuli)} {side}; one vector each is needed: choose "
                "tokens='mean', 'last' or 'first'"
            )
        parts.append(as_rows(rows, f"{name}: {side}"))
        name = store.system
    return Embedded(name, parts[0], parts[1], cut)


def _rows_of(view: View, stimuli: Stimuli, side: str) -> Tensor:
    """Rows of a store by stimulus id, in the order of the stimuli."""
    place = {name: row for row, name in reversed(list(enumerate(view.ids.tolist())))}
    missing = [name for name in stimuli.ids if name not in place]
    if missing:
        raise StoreMismatchError(
            f"{view!r} lacks {len(missing)} of {len(stimuli)} {side}, the first {missing[0]!r}; capture both with the same ids"
        )
    return as_rows(view.select(rows=np.array([place[name] for name in stimuli.ids])).torch(), side)


def _plain(rows: Any) -> Any:
    return rows if hasattr(rows, "torch") or isinstance(rows, Tensor) else np.asarray(rows)

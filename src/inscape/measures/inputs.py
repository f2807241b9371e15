"""What a user may hand to `measure` and `compare`, turned into views and measures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from inscape.errors import DegenerateInputError, StoreMismatchError, TooFewStimuliError, UnknownMeasureError
from inscape.measures import registry
from inscape.measures.base import Measure
from inscape.store import Store, View, view_of
from inscape.summaries.factors import factor_table

Measures = str | Measure | Iterable[str | Measure]


def as_measures(measures: Measures, *, arity: int) -> list[Measure]:
    """Measures by name or as objects, checked to be of one system (`arity` 1) or of a pair (2).

    Raises:
        UnknownMeasureError: no measure has that name, or it is of the other kind; the text says which verb takes it.
    """
    asked = [measures] if isinstance(measures, (str, Measure)) else list(measures)
    if not asked:
        raise UnknownMeasureError(
            "no measure was asked for; name at least one, for instance 'effective_rank' (`inscape measures` lists all)"
        )
    chosen = [registry.get(one) if isinstance(one, str) else one for one in asked]
    for one in chosen:
        if one.arity != arity:
            verb = "ix.compare(a, b, ...)" if one.arity == 2 else "ix.measure(data, ...)"
            kind = "a pair" if one.arity == 2 else "one system"
            raise UnknownMeasureError(f"{one.label!r} is a measure of {kind}; run it with {verb}")
    return list({one.label: one for one in chosen}.values())


def with_curves(measures: Sequence[Measure]) -> list[Measure]:
    """The measures and, behind them, the curves over scales that belong beside some of them."""
    added: dict[str, Measure] = {}
    for one in measures:
        if one.facts.beside:
            curve = registry.get(one.facts.beside)
            shared = {name: value for name, value in one.bound.items() if name in curve.options}
            added.setdefault(curve.name, curve.with_options(**shared) if shared else curve)
    asked = {one.name for one in measures}
    return [*measures, *(curve for name, curve in added.items() if name not in asked)]


def without_failed_curves(rows: Sequence[dict[str, Any]], asked: Sequence[Measure]) -> list[dict[str, Any]]:
    """The rows without those of curves that nobody asked for by name and that have no value, as where there are too few rows for them."""
    labels = {one.label for one in asked}
    return [row for row in rows if row["measure"] in labels or row.get("status", "ok") == "ok"]


def share_notes(rows: Sequence[dict[str, Any]]) -> None:
    """What a curve says of a site, that the dimension depends on the scale, is said of the numbers it stands beside, in place."""
    said = {(row["system"], row["site"], row["measure"].split("(")[0]): row.get("reason") for row in rows if row.get("at") is None}
    for row in rows:
        beside = registry.get(row["measure"].split("(")[0]).facts.beside
        if beside and row.get("value") is not None and not row.get("reason"):
            row["reason"] = said.get((row["system"], row["site"], beside))


def as_views(data: Any, name: str = "X") -> list[View]:
    """The sites of a store, the sites of a dictionary of arrays, or the one site that a view or array is.

    Args:
        data: store, path of a store, view, array of shape [n, d], or dictionary from name to array.
        name: what messages call an array.
    """
    if isinstance(data, Store):
        return [data[site] for site in data.sites]
    if isinstance(data, (str, os.PathLike)):
        from inscape.store import open as open_store

        return as_views(open_store(os.fspath(data)))
    if isinstance(data, Mapping):
        return as_views(Store.from_arrays(data, system=name))
    if isinstance(data, Sequence) and data and all(isinstance(one, View) for one in data):
        return list(data)
    return [view_of(data, name)]


def sources_of(view: View, groups: Any) -> np.ndarray:
    """The independent source of each row, shape [n]: the stimulus, or what `groups` says.

    Args:
        view: the site.
        groups: None, the name of a column of the stimuli, or one label per row or per stimulus.

    Raises:
        StoreMismatchError: `groups` has neither one entry per row nor one per stimulus.
    """
    if groups is None:
        return view.stimulus
    values = column_of(view, groups, "groups")
    return np.unique(values, return_inverse=True)[1]


def column_of(view: View, column: Any, what: str) -> np.ndarray:
    """One value per row from a column name or from an array with one entry per row or per stimulus.

    Several factors (names of columns, or a dictionary of arrays) give a structured array with a field each.
    """
    values = _values_of(view, column)
    stimuli = view.store.stimuli.num_rows
    if len(values) != view.n and len(values) == stimuli:
        values = values[view.stimulus]
    if len(values) == view.n:
        fields = [values[name] for name in values.dtype.names] if values.dtype.names else [values]
        empty = sum(value is None or value != value for field in fields for value in field.tolist())
        if empty:
            raise DegenerateInputError(
                f"{what} has no value for {empty} of the {view.n} rows of {view.site!r}; fill them or leave those rows out"
            )
        return values
    raise StoreMismatchError(
        f"{what} has {len(values)} entries, but site {view.site!r} has {view.n} rows "
        f"from {stimuli} stimuli; give one entry per row or per stimulus"
    )


def _values_of(view: View, column: Any) -> np.ndarray:
    if isinstance(column, str):
        return view.column(column)
    names = list(column) if isinstance(column, (list, tuple)) and all(isinstance(name, str) for name in column) else []
    if names and set(names) <= set(view.store.stimuli.column_names):
        return factor_table({name: view.column(name) for name in names})
    values = factor_table(column) if isinstance(column, Mapping) else np.asarray(column)
    return factor_table(values) if values.ndim == 2 else values


def label_names(labels: Any) -> str | None:
    """What labels are called where they are columns: "shape", "shape, size"."""
    if isinstance(labels, str):
        return labels
    names = list(labels) if isinstance(labels, (Mapping, list, tuple)) else []
    return ", ".join(names) if 0 < len(names) <= 16 and all(isinstance(name, str) for name in names) else None


def check_sources(sources: np.ndarray, site: str, interval: object) -> int:
    """The number of distinct sources; an interval needs at least two.

    Raises:
        TooFewStimuliError: an interval was asked for by name and there is only one source.
    """
    count = len(np.unique(sources))
    if count < 2 and interval not in (None, "auto"):
        raise TooFewStimuliError(f"site {site!r} has rows from {count} source; interval={interval!r} needs at least 2 independent sources")
    return count

"""Many systems at once: every pair of them, site by site, and the matrix of their distances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from inscape.errors import ResultError, StoreMismatchError
from inscape.measures import registry
from inscape.measures.best import LEFT_OUT, left_out
from inscape.measures.inputs import as_views
from inscape.measures.one_system import Row
from inscape.results import Result
from inscape.stats import benjamini_hochberg, holm
from inscape.store import Store, View


def as_systems(data: Any) -> list[tuple[str, list[View]]] | None:
    """Name and sites of each of several systems, or None where `data` is one.

    Several are a list (not of views, which are the sites of one) or a dictionary whose values are stores, their paths, or views.

    Raises:
        StoreMismatchError: two systems have one name.
    """
    if isinstance(data, Mapping):
        if len(data) < 2 or not all(isinstance(one, (Store, str, View)) for one in data.values()):
            return None
        return [(str(name), as_views(one)) for name, one in data.items()]
    if not isinstance(data, (list, tuple)) or len(data) < 2 or all(isinstance(one, View) for one in data):
        return None
    found = [as_views(one, f"X{index}") for index, one in enumerate(data)]
    names = [views[0].system for views in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StoreMismatchError(f"two of the {len(names)} systems are called {twice[0]!r}; give a dictionary from name to store instead")
    return list(zip(names, found, strict=True))


def compare_systems(
    systems: Sequence[tuple[str, list[View]]],
    one_pair: Callable[[list[View], list[View], list[tuple[str, str]]], Result],
    correction: str | None,
) -> tuple[list[Row], list[dict[str, Any]]]:
    """The rows of all pairs of systems, sites of one name with each other, and what the systems are.

    Rows carry the jackknife's values, which `take_left_out` takes out again.

    Args:
        systems: name and sites of each system.
        one_pair: compares two systems at the named pairs of sites.
        correction: of p over all rows of a measure; "max" becomes Holm's, since pairs of systems share no draws.

    Raises:
        StoreMismatchError: two systems have no site of one name.
    """
    rows: list[Row] = []
    known: dict[str, dict[str, Any]] = {}
    for (first, left), (second, right) in combinations(systems, 2):
        result = one_pair(left, right, _sites(left, right))
        held = {
            (label, a, b): left_out(result, label, a, b)
            for label, a, b in {(row["measure"], row["system"], row["system_b"]) for row in result.rows()}
        }
        for row in result.rows():
            values = held[row["measure"], row["system"], row["system_b"]].get((row["site"], row["site_b"]))
            rows.append(row | {"system": first, "system_b": second} | ({LEFT_OUT: values.tolist()} if values is not None else {}))
        for name, system in zip((first, second), result.settings["systems"], strict=False):
            known.setdefault(name, system | {"system": name})
    for label in dict.fromkeys(row["measure"] for row in rows):
        tested = [row for row in rows if row["measure"] == label and row.get("p") is not None]
        if tested and correction is not None:
            adjust = benjamini_hochberg if correction == "bh" else holm
            for row, value in zip(tested, adjust([row["p"] for row in tested]), strict=True):
                row["p_corrected"] = float(value)
    return rows, list(known.values())


def _sites(left: Sequence[View], right: Sequence[View]) -> list[tuple[str, str]]:
    if len(left) == len(right) == 1:
        return [(left[0].site, right[0].site)]
    both = [view.site for view in left if view.site in {other.site for other in right}]
    if not both:
        raise StoreMismatchError(
            f"{left[0].system} and {right[0].system} have no site of one name ({left[0].site!r}, … and {right[0].site!r}, …); select one "
            "site of each, or compare the two with ix.compare(a, b, ...)"
        )
    return [(site, site) for site in both]


def distances(result: Result, measure: str | None = None, site: str | None = None) -> tuple[np.ndarray, list[str]]:
    """The matrix of distances between systems [s, s] for one measure and site, and the systems' names; NaN where there is no value.

    A distance stays as it is; of a similarity s it is best − s, the optimum of the measure's range minus the value.

    Args:
        result: of `compare` of many systems.
        measure: its label; may be left out where there is one.
        site: likewise, a site's name; the mean over sites where there are several.

    Raises:
        ResultError: several measures and none named, or a name that the result does not have.
    """
    chosen, rows = _chosen(result, measure, site)
    names = list(dict.fromkeys(name for row in rows for name in (row["system"], row["system_b"])))
    return _matrix(chosen, names, rows, [row["value"] for row in rows]), names


def distances_left_out(result: Result, measure: str | None = None, site: str | None = None) -> np.ndarray | None:
    """The matrix of `distances` without each jackknife group, [groups, s, s]; None where the comparison has no jackknife.

    Every pair of systems that saw the same stimuli leaves out the same ones, so each of these is the matrix of a smaller experiment.
    """
    chosen, rows = _chosen(result, measure, site)
    names = list(dict.fromkeys(name for row in rows for name in (row["system"], row["system_b"])))
    held = [left_out(result, chosen, row["system"], row["system_b"]).get((row["site"], row["site_b"])) for row in rows]
    known = [values for values in held if values is not None]
    if len(known) < len(rows) or len({len(values) for values in known}) != 1:
        return None
    return np.stack([_matrix(chosen, names, rows, values) for values in np.stack(known, axis=1).tolist()])


def _chosen(result: Result, measure: str | None, site: str | None) -> tuple[str, list[Row]]:
    """The label of the one measure, and its rows at the site."""
    labels = result.unique("measure")
    chosen = measure if measure is not None else labels[0] if len(labels) == 1 else ""
    if chosen not in labels:
        raise ResultError(f"measure={measure!r}: the result has {', '.join(map(repr, labels))}; name one")
    rows = [row for row in result.rows() if row["measure"] == chosen and row["at"] is None and site in (None, row["site"], row["site_b"])]
    if not rows:
        raise ResultError(f"site={site!r} is not in the result, which has {', '.join(map(repr, result.unique('site')))}")
    return chosen, rows


def _matrix(measure: str, names: Sequence[str], rows: Sequence[Row], values: Sequence[float | None]) -> np.ndarray:
    """Mean distances over sites [s, s] from one value a row."""
    facts = registry.get(measure.split("(")[0])
    away = facts.higher == "more different"
    sums, counts = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))
    for row, value in zip(rows, values, strict=True):
        if value is None:
            continue
        i, j = names.index(row["system"]), names.index(row["system_b"])
        for place in ((i, j), (j, i)):
            sums[place] += value if away else facts.range[1] - value
            counts[place] += 1
    with np.errstate(invalid="ignore"):
        matrix = sums / counts
    np.fill_diagonal(matrix, 0.0)
    return matrix

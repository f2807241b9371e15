"""Features of more than one dimension: groups of directions whose joint reconstruction is neither a mixture nor separable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from inscape.arrays import as_numpy
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.plane import mixture_index, separability_index
from inscape.dictionaries.reading.choosing import Best
from inscape.dictionaries.reading.features import Features
from inscape.dictionaries.reading.logits import neighbors
from inscape.errors import DegenerateInputError, DictionaryError
from inscape.results import Result
from inscape.store import View, view_of
from inscape.summaries.sample import row_keys

# Rows of a group from which its planes are judged.
ROWS = 4096
_FEWEST = 50
_COMPONENTS = 5
_SHUFFLES = 10


def multidimensional(
    dictionary: Dictionary,
    X: Any,
    *,
    features: Features | None = None,
    nearest: int = 2,
    at: float = 0.5,
    largest: int = 1000,
    seed: int = 0,
) -> Result:
    """Looks for features of two and more dimensions: circles, say, of which a dictionary has one direction for each stretch.

    Features are joined with those whose directions are nearest, or with `features=` with those that are active in the same rows. What each
    group writes together, Σ codes · directions over the rows in which any of them is active, is reduced to five principal components; each
    plane of neighboring components is tested.

    Args:
        dictionary: a fitted dictionary.
        X: view or array, [n, d].
        features: join features that are active together (their `partners`) in the place of those with like directions.
        nearest: how many others a feature is joined with.
        at: cosine (or phi) from which features are joined.
        largest: larger groups are left out.
        seed: of the rows that are taken where a group has more than 4096.

    Returns:
        A `Result` with a row per group and measure over the axis "cluster", the best plane of each: `separability` (bits; `null_mean` is
        what shuffled coordinates give), `mixture`, and `irreducibility` = (1 − mixture) · separability, by which groups are ordered.
        `label` names the features and the plane. The headline `clusters` says how many groups were tested. `result.arrays["plane_0"]` and
        on hold the points of the first ten.

    Raises:
        DictionaryError: no two features are joined, or no group is active in 50 rows.

    Example:
        >>> multidimensional(dictionary, X, at=0.1).value(measure="clusters") >= 1
        True
    """
    view = view_of(X)
    groups = feature_clusters(dictionary, features=features, nearest=nearest, at=at, largest=largest)
    if not groups:
        raise DictionaryError(f"no two features of {dictionary!r} are joined at {at:g} or more; give a smaller at=")
    rows, codes = _written(dictionary, view, groups, seed)
    directions = dictionary.W_dec.detach().cpu().double().numpy()
    rng = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    for group, own, strengths in zip(groups, rows, codes, strict=True):
        if len(own) >= _FEWEST:
            plane = _best_plane(strengths @ directions[group], rng)
            if plane is not None:
                found.append({**plane, "group": group, "rows": len(own)})
    if not found:
        raise DictionaryError(f"none of {len(groups)} groups of features is active in {_FEWEST} rows and writes a plane; give more rows")
    found.sort(key=lambda one: -one["irreducibility"])
    shared = {"system": view.system, "site": view.site, "d": view.d}
    table: list[dict[str, Any]] = [{**shared, "measure": "clusters", "value": float(len(found)), "n": view.n}]
    for name in ("irreducibility", "separability", "mixture"):
        for place, one in enumerate(found):
            row = {"measure": name, "value": one[name], "n": one["rows"], "axis": "cluster", "at": place, "label": _label(one)}
            table.append({**shared, **row, **({"null_mean": one["null"]} if name == "separability" else {})})
    settings = {"verb": "dictionaries.multidimensional", "result": "measure", "recipe": dictionary.recipe.describe(), "at": at}
    settings |= {
        "joined_by": "cosine" if features is None else "company",
        "nearest": nearest,
        "groups": [one["group"].tolist() for one in found],
    }
    arrays = {f"plane_{place}": one["points"] for place, one in enumerate(found[:10])}
    return Result(table, settings=settings, arrays=arrays)


def feature_clusters(
    dictionary: Dictionary, *, features: Features | None = None, nearest: int = 2, at: float = 0.5, largest: int = 1000
) -> list[np.ndarray]:
    """Groups of features that hang together: the connected parts of the graph that joins each with its nearest.

    Args:
        dictionary: a fitted dictionary.
        features: join features that are active together in the place of those with like directions.
        nearest: how many others a feature is joined with.
        at: cosine (or phi) from which features are joined.
        largest: larger groups are left out, as are single features.

    Returns:
        Numbers of features, the largest group first.

    Example:
        >>> [len(group) for group in feature_clusters(dictionary, at=-1.0)]
        [16]
    """
    if features is None:
        places, values = (as_numpy(part) for part in neighbors(dictionary.W_dec, nearest))
        start = np.repeat(np.arange(dictionary.m), places.shape[1])
        end, weight = places.reshape(-1), values.reshape(-1)
    else:
        pairs = [(one.index, other, phi) for one in features for other, phi in one.partners[:nearest]]
        start, end, weight = (np.array([pair[i] for pair in pairs]) for i in range(3)) if pairs else (np.zeros(0, int),) * 3
    kept = weight >= at
    ones = np.ones(int(kept.sum()))
    graph: Any = sparse.coo_matrix((ones, (start[kept], end[kept])), shape=(dictionary.m, dictionary.m))
    number, label = sparse.csgraph.connected_components(graph, directed=False)
    order = np.argsort(label, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(label, minlength=number))[:-1])
    return sorted((group for group in groups if 1 < len(group) <= largest), key=lambda group: (-len(group), int(group[0])))


def _written(dictionary: Dictionary, view: View, groups: Sequence[np.ndarray], seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each group up to 4096 rows in which any of its features is active, uniformly drawn, and their codes [rows, size]."""
    member = np.full(dictionary.m, -1)
    inside = np.zeros(dictionary.m, np.int64)
    for number, group in enumerate(groups):
        member[group], inside[group] = number, np.arange(len(group))
    keys = row_keys(view.ids, view.position, view.repeat, seed=seed)
    held = Best(len(groups), ROWS)
    size = max(256, 2**25 // max(dictionary.m, dictionary.d))

    def entries(at: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        codes = dictionary.encode(view.read(at, at + size))
        features = as_numpy(codes.indices)
        joined = member[features] >= 0
        return features[joined], as_numpy(codes.rows)[joined] + at, as_numpy(codes.values)[joined]

    for at in range(0, view.n, size):
        features, rows, _ = entries(at)
        pairs = np.unique(rows * len(groups) + member[features])
        rows, owner = pairs // len(groups), pairs % len(groups)
        order = (keys[rows] >> np.uint64(11)).astype(np.float64)
        held.offer(owner, rows, np.zeros(len(rows), np.float32), order, keys[rows])
    chosen = [np.sort(own[own >= 0]) for own in held.rows]
    codes = [np.zeros((len(own), len(group))) for own, group in zip(chosen, groups, strict=True)]
    for at in range(0, view.n, size):
        features, rows, values = entries(at)
        for number in np.unique(member[features]):
            mine = member[features] == number
            place = np.searchsorted(chosen[number], rows[mine])
            hit = chosen[number][np.minimum(place, len(chosen[number]) - 1)] == rows[mine]
            codes[number][place[hit], inside[features[mine][hit]]] = values[mine][hit]
    return chosen, codes


def _best_plane(points: np.ndarray, rng: np.random.Generator) -> dict[str, Any] | None:
    """The plane of neighboring principal components with the largest product of separability and what is no mixture."""
    centered = points - points.mean(0)
    _, spread, axes = np.linalg.svd(centered, full_matrices=False)
    rank = min(_COMPONENTS, int((spread > 1e-6 * spread[0]).sum()) if spread[0] > 0 else 0)
    along = centered @ axes[:rank].T
    best: dict[str, Any] | None = None
    for first in range(rank - 1):
        plane = along[:, first : first + 2]
        try:
            separable, mixed = separability_index(plane), mixture_index(plane)
        except DegenerateInputError:
            continue
        if best is None or (1 - mixed) * separable > best["irreducibility"]:
            best = {"separability": separable, "mixture": mixed, "irreducibility": (1 - mixed) * separable}
            best |= {"plane": first, "points": plane.astype(np.float32)}
    if best is not None:
        plane = best["points"].astype(np.float64)
        shuffled = [separability_index(np.stack([plane[:, 0], rng.permutation(plane[:, 1])], 1)) for _ in range(_SHUFFLES)]
        best["null"] = float(np.mean(shuffled))
    return best


def _label(one: dict[str, Any]) -> str:
    shown = ", ".join(str(number) for number in one["group"][:8].tolist())
    more = f" and {len(one['group']) - 8} more" if len(one["group"]) > 8 else ""
    return f"features {shown}{more}; components {one['plane'] + 1} and {one['plane'] + 2}"

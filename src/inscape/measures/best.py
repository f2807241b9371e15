"""Which site of one system each site of another is most like, and which other sites could be it just as well."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from inscape.errors import ResultError
from inscape.measures import registry
from inscape.measures.one_system import Row
from inscape.results import Result

LEFT_OUT = "left_out"
_KEPT = ("n", "d", "d_b", "value", "low", "high", "interval_method", "null_mean", "p", "p_corrected", "calibrated")


def take_left_out(rows: Iterable[Row]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Takes the jackknife's values out of rows that carry them, as arrays [sites, sites_b, groups] and what their axes are.

    Differences between two entries of one array are paired, since both leave out the same rows; `best_match` needs that.

    Returns:
        The arrays of a result, and the entry "left_out" of its settings: by array, the names of its sites.
    """
    held: dict[tuple[str, str, str], dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        values = row.pop(LEFT_OUT, None)
        if values:
            key = row["measure"], row["system"], row["system_b"]
            held.setdefault(key, {})[row["site"], row["site_b"]] = values
    arrays: dict[str, np.ndarray] = {}
    axes: dict[str, Any] = {}
    for key, cells in held.items():
        sites, others = (list(dict.fromkeys(pair[side] for pair in cells)) for side in (0, 1))
        count = max(map(len, cells.values()))
        array = np.full((len(sites), len(others), count), np.nan)
        for (site, other), values in cells.items():
            if len(values) == count:
                array[sites.index(site), others.index(other)] = values
        name = array_name(*key)
        arrays[name], axes[name] = array, [sites, others]
    return arrays, axes


def array_name(measure: str, system: str, system_b: str) -> str:
    """Where a result keeps the jackknife's values of a measure and a pair of systems."""
    return f"{LEFT_OUT}/{measure}/{system}/{system_b}"


def left_out(result: Result, measure: str, system: str, system_b: str) -> dict[tuple[str, str], np.ndarray]:
    """By pair of sites, the values without each group [groups]; empty where the result has none."""
    name = array_name(measure, system, system_b)
    parts: Sequence[Mapping[str, Any]] = [result.settings, *result.settings.get("parts", ())]
    axes = next((part[LEFT_OUT][name] for part in parts if name in part.get(LEFT_OUT, {})), None)
    array = result.arrays.get(name)
    if axes is None or array is None:
        return {}
    table = {(site, other): array[i, j] for i, site in enumerate(axes[0]) for j, other in enumerate(axes[1])}
    return {pair: values for pair, values in table.items() if np.isfinite(values).all()}


def best_match(result: Result, measure: str | None = None, *, level: float = 0.95) -> Result:
    """For every site of the first system the best match among the second's sites, and the sites that could be it as well.

    The score of the best of many is too high, and its place is uncertain. Two sites are compared by the difference of their scores,
    whose error comes from the same jackknife groups, so what both share cancels. A site stays a candidate unless another one beats it
    beyond chance, by t tests that are corrected for the number of other sites (Bonferroni): the candidates hold the best site in at
    least `level` of all samples of stimuli.

    Args:
        result: of `compare`, with jackknife intervals.
        measure: label of the measure; all of them by default.
        level: how surely the candidates hold the best site.

    Returns:
        A `Result` of kind "match". Per site a row with its best match and the score there; then, with `axis="site"` and the other site's
        name in `at`, a row per other site with its score minus the best (above 0 for distances), an interval of that difference, and in
        `p_corrected` the chance of falling so far behind. Those above 1 − `level` are candidates; `reason` of the first row counts them.

    Raises:
        ResultError: no comparison, an unknown measure, or a site with one partner alone, so that there is nothing to choose.

    Source:
        Hsu, "Multiple comparisons with the best", 1996, by pairwise tests; the jackknife error of a difference as in `compare`.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((200, 6))
        >>> sim = ix.compare({"0": X[:, :3], "1": X[:, 3:]}, {"0": X[:, :3], "1": X[:, 3:]}, "linear_cka_debiased")
        >>> [row["site_b"] for row in ix.measures.best_match(sim).where(at=None).rows()]
        ['0', '1']
    """
    rows = [row for row in result.rows() if row["site_b"] is not None and row["at"] is None]
    labels = list(dict.fromkeys(row["measure"] for row in rows))
    if measure is not None and measure not in labels:
        raise ResultError(f"measure={measure!r}: the result has {', '.join(map(repr, labels)) or 'no comparison'}")
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        if measure in (None, row["measure"]) and row["value"] is not None:
            groups.setdefault((row["measure"], row["system"], row["system_b"], row["site"]), []).append(row)
    if not groups or all(len(candidates) < 2 for candidates in groups.values()):
        raise ResultError("no site has two partners to choose from; compare sites with ix.compare(a, b, ..., pairs='all')")
    found: list[Row] = []
    for (label, system, other, site), candidates in groups.items():
        known = left_out(result, label, system, other)
        away = registry.get(label.split("(")[0]).higher == "more different"
        found += _ranked(candidates, [known.get((site, row["site_b"])) for row in candidates], -1.0 if away else 1.0, level)
    settings = {"result": "match", "level": level, "systems": result.settings.get("systems", [])}
    return Result(found, settings=settings)


def _ranked(candidates: Sequence[Row], without: Sequence[np.ndarray | None], sign: float, level: float) -> list[Row]:
    """The best row, and how far the others lie behind it."""
    values = sign * np.array([row["value"] for row in candidates])
    best, count = int(values.argmax()), len(values)
    chosen = candidates[best]
    base = {name: chosen[name] for name in ("system", "site", "system_b", "site_b", "measure", "kind", "label", "subject", "seed")}
    errors, groups = _errors(without)
    p = np.full(count, np.nan)
    if groups > 1 and count > 1:
        for j in range(count):
            steps = [_tail(values[k] - values[j], errors[j, k], groups) for k in range(count) if k != j]
            p[j] = min(1.0, (count - 1) * min(steps))
    rest: list[Row] = []
    for j, row in enumerate(candidates):
        if j == best:
            continue
        behind = sign * float(values[j] - values[best])
        one = base | {"axis": "site", "at": row["site_b"], "value": behind, "n": row["n"], "d": row["d"], "d_b": row["d_b"]}
        if groups > 1:
            reach = float(student.ppf((1 + level) / 2, groups - 1) * errors[j, best])
            method = f"jackknife({groups}) of the difference"
            one |= {"low": behind - reach, "high": behind + reach, "interval_method": method, "p_corrected": float(p[j])}
        rest.append(one)
    head = base | {name: chosen[name] for name in _KEPT}
    if groups > 1 and count > 1:
        tied = int((np.delete(p, best) > 1 - level).sum())
        head["reason"] = f"{tied} of {count - 1} other sites cannot be told from the best" if tied else "no other site is as good"
    elif count > 1:
        head["reason"] = "which sites could be the best as well is unknown: compare with interval='jackknife'"
    return [head, *rest]


def _errors(without: Sequence[np.ndarray | None]) -> tuple[np.ndarray, int]:
    """Jackknife errors of all differences of two scores [c, c], and the number of groups; 0 groups where some score has none."""
    known = [values for values in without if values is not None]
    if len(known) < len(without) or len({len(values) for values in known}) != 1:
        return np.zeros((len(without), len(without))), 0
    table = np.stack(known)
    around = table - table.mean(1, keepdims=True)
    inner, groups = around @ around.T, table.shape[1]
    own = inner.diagonal()
    return np.sqrt(np.clip(own[:, None] + own - 2 * inner, 0, None) * (groups - 1) / groups), groups


def _tail(ahead: float, error: float, groups: int) -> float:
    """The chance that a score ahead by so much is so by chance alone."""
    if error <= 1e-12 * max(1.0, abs(ahead)):
        return 1.0 if ahead <= 1e-12 else 0.0
    return float(student.sf(ahead / error, groups - 1)) if math.isfinite(ahead) else 1.0

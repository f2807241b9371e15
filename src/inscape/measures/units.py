"""Unit by unit: which unit of one site corresponds to which of another, and how well, beside what chance pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from inscape.errors import DegenerateInputError, InscapeError
from inscape.measures import registry
from inscape.measures.inputs import as_views, sources_of
from inscape.measures.matching import correlations
from inscape.measures.one_system import Row
from inscape.measures.pairs import Pairs, failed_row, match, wanted_pairs
from inscape.measures.uncertainty import noted
from inscape.results import Result
from inscape.stats import permutation_test, permutations
from inscape.summaries import CrossMoments, Moments
from inscape.summaries.rows import SiteRows

ALPHA = 0.05


def match_units(
    a: Any,
    b: Any,
    *,
    pairs: Pairs = "diagonal",
    draws: int = 20,
    groups: Any = None,
    on: str | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> Result:
    """Pairs the units of two systems one to one so that the sum of correlations is largest, and does the same with rows shuffled.

    `neuron_match` is the mean of the correlations that this gives unit by unit. What shuffled rows give is the chance curve: an
    assignment picks the largest of many chance correlations, so it is far from 0.

    Args:
        a: a store (or its path), a view, an array [n, d], or a dictionary of arrays.
        b: the same for the second system.
        pairs: "diagonal" (the i-th site with the i-th), "all", "kind" (names that differ in numbers alone), or a list of (site, site).
        draws: shuffles of the rows.
        groups: rows of one group are dependent and stay together; a column, or one label per row or stimulus.
        on: "intersection" compares the stimuli that both have.
        sample: at most this many rows.
        seed: of shuffles and sample.

    Returns:
        A `Result` of kind "units". Per pair of sites a row `neuron_match` with p, null mean and calibrated score, and a row
        `units_beyond_chance`: the share of units whose correlation is above the 95 % quantile of shuffled ones. In `arrays`, by the
        names that `settings["units"]` lists: `r/k` [p] the correlation of each unit of `a` with its partner (NaN without one),
        `partner/k` [p] the partner's number (−1 without one), and `chance/k` [draws, pairs] shuffled ones.

    Raises:
        StoreMismatchError: the rows cannot be paired.
        DegenerateInputError: no pair of sites has units that change on both sides.

    Source:
        Li, Yosinski, Clune, Lipson & Hopcroft, "Convergent learning", 2015 (bipartite matching).

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 4))
        >>> ix.measures.match_units(X, X[:, [2, 0, 3, 1]]).arrays["partner/0"].tolist()
        [1, 3, 0, 2]
    """
    if draws < 1:
        raise ValueError(f"draws={draws}; at least 1 shuffle is needed for the chance curve")
    left = as_views(a, "X")
    right = left if a is b else as_views(b, "Y")
    found, refused = match(
        left, right, wanted_pairs(left, right, pairs, same=a is b), same=a is b, repeats=None, on=on, sample=sample, seed=seed
    )
    if not found and refused:
        raise refused[0][1]
    rows: list[Row] = []
    arrays: dict[str, np.ndarray] = {}
    listed: list[dict[str, Any]] = []
    for matched in found:
        for i, j in matched.pairs:
            sides = SiteRows(left[i], matched.rows_left), SiteRows(right[j], matched.rows_right)
            sources = sources_of(left[i], groups)
            sources = sources if matched.rows_left is None else sources[matched.rows_left]
            base: Row = {"system": left[i].system, "site": left[i].site, "system_b": right[j].system, "site_b": right[j].site}
            base |= {"kind": left[i].kind, "n": matched.n, "d": left[i].d, "d_b": right[j].d}
            try:
                with noted() as notes:
                    r, partner, chance = _matched(*sides, list(permutations(sources, draws, seed=seed)))
            except InscapeError as error:
                rows.append(failed_row(left[i], right[j], registry.get("neuron_match"), error))
                continue
            key = str(len(listed))
            arrays |= {f"r/{key}": r, f"partner/{key}": partner, f"chance/{key}": chance}
            listed.append({name: base[name] for name in ("system", "site", "system_b", "site_b")})
            rows += _summed(base, r, chance, notes)
    rows += [failed_row(left[i], right[j], registry.get("neuron_match"), error) for (i, j), error in refused]
    if not listed:
        raise DegenerateInputError(str(rows[0]["reason"]))
    settings = {"verb": "match_units", "result": "units", "units": listed, "draws": draws, "seed": seed, "sample": sample}
    return Result(rows, settings=settings, arrays=arrays)


def _matched(x: SiteRows, y: SiteRows, orders: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlation and partner of each unit of X, and the correlations that shuffled rows give."""
    X, Y = (side.all().double() for side in (x, y))
    own = Moments.of(X), Moments.of(Y)
    pair = CrossMoments.of(X, Y, x=own[0], y=own[1])
    table, alive = correlations(pair, "neuron_match"), [_alive(moments) for moments in own]
    first, second = linear_sum_assignment(table, maximize=True)
    r, partner = np.full(x.d, np.nan), np.full(x.d, -1)
    r[alive[0][first]] = table[first, second]
    partner[alive[0][first]] = alive[1][second]
    # Only the order of rows changes: standardized once, every shuffle is one product.
    units = [_standardized(rows[:, torch.from_numpy(kept)]) for rows, kept in zip((X, Y), alive, strict=True)]
    chance: list[np.ndarray] = []
    for order in orders:
        shuffled = (units[0].T @ units[1][torch.from_numpy(order)]).numpy()
        chance.append(shuffled[linear_sum_assignment(shuffled, maximize=True)])
    return r, partner, np.stack(chance)


def _alive(moments: Moments) -> np.ndarray:
    """Numbers of the units that change, as `correlations` keeps them."""
    square = moments.scatter.diagonal()
    return (square > (1e-13 * moments.n**0.5 * moments.mean.abs()) ** 2).nonzero().squeeze(1).numpy()


def _standardized(rows: torch.Tensor) -> torch.Tensor:
    centered = rows - rows.mean(0)
    return centered / centered.norm(dim=0)


def _summed(base: Row, r: np.ndarray, chance: np.ndarray, notes: list[str]) -> list[Row]:
    paired = r[np.isfinite(r)]
    test = permutation_test(float(paired.mean()), chance.mean(1), best=1.0)
    beyond = float((paired > np.quantile(chance, 1 - ALPHA)).mean())
    noted = {"reason": notes[0]} if notes else {}
    return [
        base | {"measure": "neuron_match", "value": float(paired.mean()), "null_mean": test.mean, "p": test.p} | noted
        | {"calibrated": test.calibrated},
        base | {"measure": "units_beyond_chance", "value": beyond, "null_mean": ALPHA},
    ]  # fmt: skip

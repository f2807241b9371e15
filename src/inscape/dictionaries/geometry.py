"""Geometry of features and concepts: parallel differences (crystals), and lobes of features that are active together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse

from inscape.arrays import as_numpy, as_rows, format_bytes
from inscape.dictionaries.fitted import Dictionary
from inscape.errors import DegenerateInputError, DictionaryError, MemoryBudgetError
from inscape.results import Result
from inscape.store import view_of

# Two m × m matrices of 64-bit numbers: co-activation, and the affinity made of it.
_LARGEST = 8192
_TRIES = 8

AFFINITIES: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "phi": lambda both, own, n: (
        (n * both - own[:, None] * own) / np.sqrt(np.maximum(1.0, (own * (n - own))[:, None] * (own * (n - own)).astype(float)))
    ),
    "jaccard": lambda both, own, n: both / np.maximum(1, own[:, None] + own - both),
    "dice": lambda both, own, n: 2 * both / np.maximum(1, own[:, None] + own),
    "overlap": lambda both, own, n: both / np.maximum(1, np.minimum(own[:, None], own)),
    "simple_matching": lambda both, own, n: (n - own[:, None] - own + 2 * both) / n,
}


def parallelism(
    points: Any, pairs: Any, relation: Sequence[Any] | None = None, *, without: Any = None, draws: int = 200, seed: int = 0
) -> Result:
    """Whether pairs of one relation differ in one direction, as the corners of a parallelogram do: man, woman and king, queen.

    For each pair the cosine between its difference and the mean difference of the other pairs of its relation, averaged over pairs. Where
    differences are exactly parallel that is 1; the null joins the first members of each relation with its second members at random.

    Args:
        points: [n, d], one row for each concept: directions of features, rows of words.
        pairs: [p, 2], row numbers of first and second members.
        relation: [p], the name of each pair's relation; default one for all.
        without: [q, d] directions that are projected out first, such as what only tells long words from short ones.
        draws: shuffles of the null.
        seed: of the shuffles.

    Returns:
        A `Result` with `parallelism` per relation (the column `label`) and over all, with `null_mean` and p.

    Raises:
        DegenerateInputError: pairs of another shape, rows that are not there, a relation with a single pair, or two equal points.

    Source: Li et al. 2025 (arXiv 2410.19750), "atom" scale.

    Example:
        >>> corners = np.array([[0, 0, 1], [1, 0, 1], [0, 2, 0], [1, 2, 0.0]])
        >>> parallelism(corners, [[0, 1], [2, 3]]).value(measure="parallelism", label="all")
        1.0
    """
    rows = as_numpy(as_rows(points, "points")).astype(np.float64)
    P = np.asarray(pairs)
    if P.ndim != 2 or P.shape[1] != 2 or P.dtype.kind not in "iu" or P.min(initial=0) < 0 or P.max(initial=0) >= len(rows):
        raise DegenerateInputError(f"pairs have shape {P.shape} and dtype {P.dtype}; expected [p, 2] row numbers below {len(rows)}")
    names = np.asarray(["all"] * len(P) if relation is None else [str(name) for name in relation])
    if len(names) != len(P):
        raise DegenerateInputError(f"relation has {len(names)} entries for {len(P)} pairs")
    if without is not None:
        basis = np.linalg.qr(as_numpy(as_rows(without, "without")).astype(np.float64).T)[0]
        rows = rows - (rows @ basis) @ basis.T
    kinds = list(dict.fromkeys(names.tolist()))
    for kind in kinds:
        if (names == kind).sum() < 2:
            raise DegenerateInputError(f"relation {kind!r} has a single pair; parallel is a statement about two or more")
    if (np.linalg.norm(rows[P[:, 1]] - rows[P[:, 0]], axis=1) <= 1e-12 * np.abs(rows).max()).any():
        raise DegenerateInputError("both members of a pair are at the same point, so they differ in no direction")
    rng = np.random.default_rng(seed)
    each = {kind: P[names == kind] for kind in kinds}
    real = {kind: _parallel(rows, mine) for kind, mine in each.items()}
    null = np.zeros((draws, len(P)))
    for draw in range(draws):
        shuffled = [_parallel(rows, np.stack([mine[:, 0], rng.permutation(mine[:, 1])], 1)) for mine in each.values()]
        null[draw] = np.concatenate(shuffled)
    table: list[dict[str, Any]] = []
    starts = np.cumsum([0, *(len(mine) for mine in each.values())])
    parts = [(kind, slice(starts[i], starts[i + 1])) for i, kind in enumerate(kinds)] if relation is not None else []
    values = np.concatenate(list(real.values()))
    for label, part in [("all", slice(None)), *parts]:
        value, chance = float(values[part].mean()), null[:, part].mean(1)
        p = float((1 + (chance >= value - 1e-9 * abs(value)).sum()) / (1 + draws)) if draws else None
        row = {"measure": "parallelism", "value": value, "label": label, "n": len(values[part]), "d": rows.shape[1]}
        table.append({**row, "null_mean": float(chance.mean()) if draws else None, "p": p})
    settings = {
        "verb": "dictionaries.parallelism",
        "draws": draws,
        "seed": seed,
        "without": 0 if without is None else len(as_rows(without)),
    }
    return Result(table, settings=settings, arrays={"cosine": values})


def _parallel(X: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The cosine of each difference with the mean of the others; 0 where there is no difference."""
    steps = X[pairs[:, 1]] - X[pairs[:, 0]]
    rest = steps.sum(0) - steps
    length = np.linalg.norm(steps, axis=1) * np.linalg.norm(rest, axis=1)
    scale = np.abs(X).max()
    return np.divide((steps * rest).sum(1), length, out=np.zeros(len(steps)), where=length > 1e-12 * scale**2)


def lobes(
    dictionary: Dictionary, X: Any, count: int = 2, *, affinity: str = "phi", block: int = 256, draws: int = 200, seed: int = 0
) -> Result:
    """Whether features that are active in the same stretches of text also point in like directions: lobes, as of a brain.

    Features are divided in `count` groups twice by spectral clustering: by how often they are active in the same blocks of rows, and by the
    angles between their directions. The adjusted mutual information of the two divisions is 0 on average where they have nothing to do with
    each other, and 1 where they are the same.

    Args:
        dictionary: a fitted dictionary of up to 8192 features.
        X: view or array, [n, d], rows in the order of the text.
        count: number of lobes.
        affinity: "phi", "jaccard", "dice", "overlap" or "simple_matching" of activity in blocks.
        block: rows of a block; a block ends where its stimulus does, unless stimuli are single rows.
        draws: shuffles of the null.
        seed: of clustering and shuffles.

    Returns:
        A `Result` with `lobe_agreement` (with `null_mean` and p), and each feature's lobe in `result.arrays`: "lobe" by company,
        "direction" by angle; −1 for features that are never active.

    Raises:
        DictionaryError: an unknown affinity, or fewer active features than three for each lobe.
        MemoryBudgetError: more than 8192 features.

    Source: Li et al. 2025 (arXiv 2410.19750), "brain" scale.

    Example:
        >>> lobes(dictionary, X, block=4).unique("measure")
        ['lobe_agreement']
    """
    if affinity not in AFFINITIES:
        raise DictionaryError(f"affinity={affinity!r} is none of {', '.join(AFFINITIES)}")
    if dictionary.m > _LARGEST:
        need = format_bytes(2 * 8 * dictionary.m**2)
        raise MemoryBudgetError(f"{dictionary.m} features need {need} for all pairs; lobes take up to {_LARGEST}")
    if count < 2 or block < 1:
        raise DictionaryError(f"count={count}, block={block}: expected 2 lobes or more, and blocks of 1 row or more")
    view = view_of(X)
    both, blocks = _together(dictionary, view, block)
    own = both.diagonal().copy()
    active = np.flatnonzero(own > 0)
    if len(active) < 3 * count:
        raise DictionaryError(f"{len(active)} of {dictionary.m} features are active in these rows, too few for {count} lobes")
    company = np.maximum(0.0, AFFINITIES[affinity](both[np.ix_(active, active)], own[active], blocks))
    unit = torch.nn.functional.normalize(dictionary.W_dec.detach().cpu().double(), dim=1).numpy()[active]
    angle = 1 - np.arccos(np.clip(unit @ unit.T, -1, 1)) / np.pi
    first, second = spectral(company, count, seed), spectral(angle, count, seed)
    value = adjusted_mutual_information(first, second)
    rng = np.random.default_rng(seed)
    chance = np.array([adjusted_mutual_information(first, rng.permutation(second)) for _ in range(draws)])
    p = float((1 + (chance >= value - 1e-9 * abs(value)).sum()) / (1 + draws)) if draws else None
    arrays = {"lobe": np.full(dictionary.m, -1), "direction": np.full(dictionary.m, -1)}
    arrays["lobe"][active], arrays["direction"][active] = first, second
    row = {"system": view.system, "site": view.site, "measure": "lobe_agreement", "value": value, "n": len(active), "d": view.d, "p": p}
    row |= {"null_mean": float(chance.mean()) if draws else None, "label": f"{count} lobes by {affinity}"}
    settings = {"verb": "dictionaries.lobes", "count": count, "affinity": affinity, "block": block, "blocks": blocks, "seed": seed}
    return Result([row], settings=settings, arrays=arrays)


def _together(dictionary: Dictionary, view: Any, block: int) -> tuple[np.ndarray, int]:
    """In how many blocks each pair of features is active, [m, m], and how many blocks there are."""
    single = len(np.unique(view.stimulus)) == view.n
    text = np.zeros(view.n, np.int64) if single else np.cumsum(np.diff(view.stimulus, prepend=view.stimulus[:1]) != 0)
    starts = np.flatnonzero(np.diff(text, prepend=-1))
    within = np.arange(view.n) - starts[text]
    number = np.cumsum(within % block == 0) - 1
    both = np.zeros((dictionary.m, dictionary.m))
    size = max(256, 2**25 // max(dictionary.m, dictionary.d))
    ends = np.flatnonzero(np.diff(number, append=number[-1] + 1)) + 1
    at = 0
    while at < view.n:
        stop = int(ends[min(np.searchsorted(ends, at + size), len(ends) - 1)])  # blocks are never cut
        codes = dictionary.encode(view.read(at, stop))
        place = number[at:stop][as_numpy(codes.rows)] - number[at]
        count = int(number[stop - 1] - number[at]) + 1
        active: Any = sparse.csr_matrix((np.ones(len(place)), (place, as_numpy(codes.indices))), shape=(count, dictionary.m))
        active.data[:] = 1.0
        both += (active.T @ active).toarray()
        at = stop
    return both, int(number[-1]) + 1


def spectral(affinity: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Spectral clustering (Ng, Jordan and Weiss 2002): k-means on the unit rows of the leading eigenvectors of the normalized affinity."""
    from scipy.linalg import eigh

    weight = affinity.copy()
    np.fill_diagonal(weight, 0.0)
    scale = 1 / np.sqrt(np.maximum(weight.sum(1), 1e-12))
    m = len(weight)
    _, vectors = eigh(scale[:, None] * weight * scale, subset_by_index=[m - count, m - 1])
    rows = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return _k_means(rows, count, seed)


def _k_means(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The best of eight k-means from centers far from each other (k-means++)."""
    rng = np.random.default_rng(seed)
    best: tuple[float, np.ndarray] | None = None
    for _ in range(_TRIES):
        centers = rows[[rng.integers(len(rows))]]
        while len(centers) < count:
            far = ((rows[:, None] - centers) ** 2).sum(2).min(1)
            chosen = int(rng.choice(len(rows), p=far / far.sum()) if far.sum() > 0 else rng.integers(len(rows)))
            centers = np.concatenate([centers, rows[[chosen]]])
        label = np.zeros(len(rows), np.int64)
        for _ in range(100):
            distance = ((rows[:, None] - centers) ** 2).sum(2)
            fresh = distance.argmin(1)
            if (fresh == label).all():
                break
            label = fresh
            centers = np.stack([rows[label == i].mean(0) if (label == i).any() else centers[i] for i in range(count)])
        cost = float(((rows - centers[label]) ** 2).sum())
        if best is None or cost < best[0]:
            best = cost, label
    assert best is not None
    return best[1]


def adjusted_mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information of two divisions, less what divisions of the same sizes have by chance, over its largest value (arithmetic mean).

    Vinh, Epps and Bailey 2010; divisions into a single group each agree, 1.
    """
    from scipy.special import gammaln

    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    n, rows, columns = table.sum(), table.sum(1), table.sum(0)
    entropies = [-float((part / n * np.log(part / n)).sum()) for part in (rows, columns)]
    if len(rows) == len(columns) == 1:
        return 1.0
    filled = table > 0
    information = float((table[filled] / n * np.log(n * table[filled] / np.outer(rows, columns)[filled])).sum())
    expected = 0.0
    for row in rows:
        for column in columns:
            k = np.arange(max(1, row + column - n), min(row, column) + 1)
            ways = gammaln(row + 1) + gammaln(column + 1) + gammaln(n - row + 1) + gammaln(n - column + 1)
            ways = (
                ways - gammaln(n + 1) - gammaln(k + 1) - gammaln(row - k + 1) - gammaln(column - k + 1) - gammaln(n - row - column + k + 1)
            )
            expected += float((k / n * np.log(n * k / (row * column)) * np.exp(ways)).sum())
    scale = sum(entropies) / 2 - expected
    return float((information - expected) / scale) if abs(scale) > 1e-15 else 0.0

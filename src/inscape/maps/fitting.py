"""The verb `ix.align`: fits a map from one space to another."""

from __future__ import annotations

from typing import Any

import numpy as np

from inscape.errors import DegenerateInputError, MapError, TooFewStimuliError
from inscape.maps.base import PairedRows, method_named
from inscape.maps.fitted import Map
from inscape.maps.sides import labels_of, paired


def align(
    a: Any,
    b: Any,
    method: str = "orthogonal",
    *,
    holdout: float = 0.2,
    groups: Any = None,
    repeats: str | None = None,
    on: str = "all",
    seed: int = 0,
    **options: Any,
) -> Map:
    """Fits a map from the space of a to the space of b.

    Args:
        a: rows to map, [n, p]: array, tensor, view, or store with one site.
        b: rows to map to, [n, q]; row i of both is the same stimulus (views and stores are joined by stimulus).
        method: "orthogonal" (a rotation), "affine" (least squares), "ridge", "relative" (cosines with shared anchors) or "permutation"
            (unit by unit); each is described in `docs/align.md`.
        holdout: share of the sources that the fit does not see, for `Map.score` and `Map.retrieval`; 0 fits on all rows.
        groups: rows of one group stay on one side of that cut: a column of the stimuli, or one label per row or stimulus; default the
            stimulus.
        repeats: "mean", "split" or "all", where stimuli were shown several times.
        on: "all" refuses stimuli that one side lacks, "intersection" keeps those that both have.
        seed: which sources are held out, and of what a method draws itself.
        options: what the method knows besides: `scale` (orthogonal), `alphas` and `folds` (ridge), `anchors` and `cut` (relative).

    Returns:
        A `Map` with `transform`, `inverse`, `score`, `retrieval`, `save` and `load`.

    Raises:
        MapError: an unknown method or option, or a share outside 0 to 1.
        StoreMismatchError: the rows do not pair.
        TooFewStimuliError: fewer than 3 pairs to fit on, or too few for the method.
        DegenerateInputError: NaN or infinity, or all rows of one side are equal.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 4))
        >>> round(ix.align(X, X[:, ::-1]).score().value(measure="map_r2"), 6)
        1.0
    """
    chosen = method_named(method)
    chosen.check(options)
    if not 0 <= holdout < 1:
        raise MapError(f"holdout={holdout} is a share of the stimuli, from 0 to below 1")
    left, right = paired(a, b, repeats=repeats, on=on)
    sources = labels_of(left, groups)
    test = _held_out(sources, holdout, seed)
    train = np.flatnonzero(~test)
    if len(train) < 3:
        raise TooFewStimuliError(f"{len(train)} of {left.n} pairs of rows are left to fit on; a map needs at least 3")
    pairs = PairedRows(left, right, train, sources)
    for moments, name in ((pairs.moments.x, "a"), (pairs.moments.y, "b")):
        if moments.trace <= 0:
            raise DegenerateInputError(
                f"all {len(train)} rows of {name} (shape {[len(train), moments.d]}) are equal; nothing can be mapped"
            )
    if "seed" in chosen.options:
        options.setdefault("seed", seed)
    fit = chosen.fit(pairs, **options)
    info = {
        "a": f"{left.system}/{left.site}",
        "b": f"{right.system}/{right.site}",
        "n": len(train),
        "n_held_out": int(test.sum()),
        "holdout": holdout,
        "seed": seed,
        "options": {name: list(value) if isinstance(value, (tuple, list)) else value for name, value in options.items()},
        **fit.told,
    }
    means = {"mean_a": pairs.moments.x.mean, "mean_b": pairs.moments.y.mean}
    tensors = {"weight": fit.weight, "back": fit.back, **means, **fit.tensors}
    made = Map(chosen.name, {name: value.detach().cpu() for name, value in tensors.items()}, info)
    if test.any():
        outside = PairedRows(left, right, np.flatnonzero(test), sources)
        made._held = (*outside.rows(), outside.sources)
    return made


def _held_out(sources: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which rows are held out: whole sources, drawn at random; at least one where the share is not 0."""
    names, number = np.unique(sources, return_inverse=True)
    count = 0 if share == 0 else min(max(1, round(share * len(names))), len(names) - 1)
    drawn = np.zeros(len(names), dtype=bool)
    drawn[np.random.default_rng(seed).permutation(len(names))[:count]] = True
    return drawn[number]

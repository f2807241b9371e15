"""Ways of swapping: a new index, new queries on the old one as they are, or through a map; and what each does to retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import ks_2samp
from torch import Tensor

from inscape.errors import InscapeError
from inscape.maps import Map, align
from inscape.maps.scoring import ratio_row
from inscape.swaps.embedding import Embedded
from inscape.swaps.search import nearest

WHAT = {
    "old": "as it is today",
    "new": "new queries, new index",
    "direct": "new queries on the old index, as they are",
}


@dataclass(frozen=True)
class Ranked:
    """What one route finds.

    Attributes:
        name: "old", "new", "direct" or the method of a map.
        scores: [n, k], best first; None where the route leads nowhere.
        places: of the documents, [n, k].
        reason: why there is nothing.
        map: the fitted map, where there is one.
    """

    name: str
    scores: np.ndarray | None = None
    places: np.ndarray | None = None
    reason: str = ""
    map: Map | None = field(default=None, repr=False)

    @property
    def what(self) -> str:
        """The route in words."""
        return WHAT.get(self.name, f"new queries through the {self.name} map, on the old index")


def all_routes(
    old: Embedded, new: Embedded, k: int, maps: Sequence[str], *, metric: str, engine: str, sample: int, seed: int
) -> list[Ranked]:
    """Every route with what it finds; one that fails says why and stops no other."""

    def find(name: str, queries: Tensor, corpus: Tensor, fitted: Map | None = None) -> Ranked:
        scores, places = nearest(queries, corpus, k, metric=metric, engine=engine)
        return Ranked(name, scores, places, map=fitted)

    found = [find("old", old.queries, old.corpus), find("new", new.queries, new.corpus)]
    widths = old.corpus.shape[1], new.corpus.shape[1]
    if widths[0] == widths[1]:
        found.append(find("direct", new.queries, old.corpus))
    else:
        found.append(Ranked("direct", reason=f"the index has {widths[0]} units, the new encoder gives {widths[1]}"))
    # Maps are fitted on documents that both encoders have read; a sample is enough, and no query is among them.
    rows = np.sort(np.random.default_rng(seed).permutation(len(old.corpus))[:sample])
    for method in maps:
        try:
            fitted = align(new.corpus[rows], old.corpus[rows], method, seed=seed)
            fitted.info |= {"a": f"{new.name}/corpus", "b": f"{old.name}/corpus"}
            found.append(find(method, fitted.transform(new.queries), old.corpus, fitted))
        except InscapeError as error:
            found.append(Ranked(method, reason=str(error)))
    return found


def query_values(
    route: Ranked, old: Ranked, relevant: Sequence[np.ndarray] | None, ks: Sequence[int], threshold: float
) -> dict[str, np.ndarray]:
    """The numbers of one route for each query, [n]; NaN for the recall of queries without a relevant document."""
    assert route.places is not None and route.scores is not None and old.places is not None and old.scores is not None
    values: dict[str, np.ndarray] = {}
    for k in ks:
        if relevant is None:
            values[f"recall@{k}"] = (route.places[:, :k] == old.places[:, :1]).any(1).astype(float)
        else:
            hits = [np.isin(route.places[i, :k], one).sum() / len(one) if len(one) else np.nan for i, one in enumerate(relevant)]
            values[f"recall@{k}"] = np.array(hits)
        width = min(k, route.places.shape[1])
        shared = [len(np.intersect1d(a[:k], b[:k])) / width for a, b in zip(route.places, old.places, strict=True)]
        values[f"overlap@{k}"] = np.array(shared)
    if route.name != "old":
        spread = float(old.scores[:, 0].std()) or 1.0
        values["score_shift"] = (route.scores[:, 0] - old.scores[:, 0]) / spread
        values["inconsistency"] = ((route.scores[:, 0] >= threshold) != (old.scores[:, 0] >= threshold)).astype(float)
    return values


def route_rows(
    route: Ranked, values: dict[str, np.ndarray], old: Ranked, segments: np.ndarray | None, *, interval: Any, level: float, seed: int
) -> list[dict[str, Any]]:
    """Rows of a result: each number over all queries, with an interval, and in each segment."""
    rows: list[dict[str, Any]] = []
    for name, per in values.items():
        known = ~np.isnan(per)
        bounds = (-np.inf, np.inf) if name == "score_shift" else (0.0, 1.0)
        groups: list[tuple[Any, np.ndarray]] = [(None, known)]
        if segments is not None and name != "score_shift":
            groups += [(segment, known & (segments == segment)) for segment in sorted(set(segments.tolist()), key=str)]
        for segment, chosen in groups:
            place = {"label": route.name, "n": int(chosen.sum())} | ({} if segment is None else {"axis": "segment", "at": str(segment)})
            if not chosen.any():
                rows.append({"measure": name, **place, "status": "undefined", "reason": "no query here has a relevant document"})
                continue
            mine, at = per[chosen], np.flatnonzero(chosen)
            rows.append(place | ratio_row(name, (mine, np.ones(len(mine))), lambda a, b: a / b, at, interval, level, seed, bounds))
    if route.name != "old":
        assert route.scores is not None and old.scores is not None
        # Only the gap is read; the exact p-value, which warns where scores are nearly equal, is not asked for.
        apart = float(ks_2samp(route.scores[:, 0], old.scores[:, 0], method="asymp").statistic)  # pyright: ignore[reportAttributeAccessIssue]
        rows.append({"label": route.name, "measure": "score_ks", "value": apart, "n": len(route.scores)})
    if route.map is not None and route.map._held is not None:
        scores = route.map.score(interval=interval, level=level, seed=seed).rows()
        kept = ("measure", "value", "low", "high", "interval_method", "n")
        rows += [{"label": route.name, **{key: row[key] for key in kept}} for row in scores]
    return rows
